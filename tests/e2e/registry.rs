//! Debian's `docker-registry`, with the base images of the tests in it.
//!
//! One registry serves the whole test run. It is made on first use, and the kernel ends it with the test program
//! (`setpriv --pdeathsig`, from a thread that lives as long), so that nothing is left even after Ctrl-C.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// The images that [`shared`] holds, and the names of the build arguments that cases take them by.
pub(crate) const IMAGES: [(&str, &str); 3] = [("BASE", "busybox"), ("RICH", "rich"), ("ONBUILD", "onbuild")];

/// A registry that runs.
#[derive(Debug)]
pub(crate) struct Registry {
    address: String,
    images: PathBuf,
}

impl Registry {
    /// `HOST:PORT`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The full name of one of [`IMAGES`].
    pub(crate) fn image(&self, name: &str) -> String {
        format!("{}/strata/{name}", self.address)
    }

    /// `--build-arg` with the busybox base under the name `BASE`.
    pub(crate) fn base_argument(&self) -> String {
        format!("--build-arg=BASE={}", self.image("busybox"))
    }

    /// The OCI layout that one of [`IMAGES`] was pushed from.
    pub(crate) fn layout(&self, name: &str) -> PathBuf {
        self.images.join(name)
    }
}

/// The registry of this test run.
pub(crate) fn shared() -> &'static Registry {
    static SHARED: OnceLock<Registry> = OnceLock::new();
    SHARED.get_or_init(|| {
        let directory = run_directory();
        let images = directory.join("images");
        fs::create_dir_all(&images).unwrap();
        let address = start(&directory, None);
        for (_, name) in IMAGES {
            make_image(name, &images.join(name));
            push(&images.join(name), &format!("{address}/strata/{name}:latest"), &[]);
        }
        Registry { address, images }
    })
}

/// Starts a registry that asks for this name and password, with the busybox base in it; gives its address.
pub(crate) fn start_with_password(directory: &Path, name: &str, password: &str) -> String {
    let address = start(directory, Some((name, password)));
    push(
        &shared().layout("busybox"),
        &format!("{address}/private/busybox:latest"),
        &["--dest-creds", &format!("{name}:{password}")],
    );
    address
}

/// Makes one of [`IMAGES`] as an OCI layout.
fn make_image(name: &str, layout: &Path) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/base_image.py");
    run(Command::new("python3").arg(script).arg(name).arg(layout));
}

/// Pushes an OCI layout as it is.
pub(crate) fn push(layout: &Path, name: &str, arguments: &[&str]) {
    let mut command = Command::new("skopeo");
    command.args(["copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false"]).args(arguments);
    run(command.arg(format!("oci:{}:latest", layout.display())).arg(format!("docker://{name}")));
}

/// Runs a tool to its end, and fails the test with what it said if it fails.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| {
        panic!("{command:?} cannot be started ({error}); `make test` installs what the tests need")
    });
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, text(&output.stderr));
    text(&output.stdout)
}

/// A directory for this test run; those of runs that are over are removed.
fn run_directory() -> PathBuf {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for entry in fs::read_dir(parent).into_iter().flatten().filter_map(Result::ok) {
        let name = entry.file_name().into_string().unwrap_or_default();
        if let Some(pid) = name.strip_prefix("registry-")
            && !Path::new("/proc").join(pid).exists()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let directory = parent.join(format!("registry-{}", std::process::id()));
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    directory
}

/// Starts a registry that keeps its images in a directory; gives its address.
fn start(directory: &Path, password: Option<(&str, &str)>) -> String {
    let address = free_address();
    let mut config = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp: {{addr: \"{address}\"}}\n",
        directory.join("data").display()
    );
    if let Some((name, password)) = password {
        let file = directory.join("htpasswd");
        fs::write(&file, format!("{name}:{}\n", bcrypt(password))).unwrap();
        config.push_str(&format!("auth: {{htpasswd: {{realm: strata-tests, path: {}}}}}\n", file.display()));
    }
    let file = directory.join("config.yml");
    fs::write(&file, config).unwrap();
    let log = fs::File::create(directory.join("log")).unwrap();

    // The signal comes when the *thread* that started the process ends, so that thread must never end by itself.
    let (started, ready) = channel();
    std::thread::spawn(move || {
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "docker-registry", "serve"])
            .arg(file)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        started.send(child.map(|mut child| child.try_wait())).unwrap();
        loop {
            std::thread::park();
        }
    });
    ready.recv().unwrap().expect("setpriv can be started").unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(&address).is_err() {
        let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
        assert!(Instant::now() < deadline, "docker-registry did not come up; `make test` installs it\n{log}");
        std::thread::sleep(Duration::from_millis(20));
    }
    address
}

/// An address on loopback where nothing listens.
pub(crate) fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// The only form of password that the registry takes. Python's `crypt` and glibc on Debian know it.
fn bcrypt(password: &str) -> String {
    let program = "import ctypes,sys\nc=ctypes.CDLL('libcrypt.so.1').crypt\nc.restype=ctypes.c_char_p\n\
                   print(c(sys.argv[1].encode(),b'$2y$05$abcdefghijklmnopqrstuu').decode())";
    run(Command::new("python3").args(["-c", program, password])).trim().to_owned()
}
