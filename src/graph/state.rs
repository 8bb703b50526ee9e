//! What a stage has come to after the steps so far: its file system, variables and image configuration.
//!
//! Takes a base (nothing, an image's configuration, or another stage's state) and gives the state its first step sees.
//! Keeps the variables of the build (`ARG` and `ENV`, by when they were set) apart from the image's (`ENV`, by where
//! they first stood), as BuildKit does. The history is kept by the caller, stage by stage, so that a long chain of
//! stages never copies it.

use std::collections::HashMap;

use crate::graph::path;
use crate::graph::scope::{Arguments, Environment};
use crate::graph::{ImageRequest, NodeId};
use crate::image::config::{ImageConfig, RootFs, RunConfig};
use crate::recipe::platform::Platform;

/// Where Unix programs are looked for when the base does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Facts of a base's configuration about how that image itself was built; true of no image on top of it.
const NOT_INHERITED: [&str; 7] = [
    "container",
    "container_config",
    "docker_version",
    "id",
    "moby.buildkit.buildinfo.v1",
    "moby.buildkit.cache.v0",
    "parent",
];

/// A stage between two steps.
#[derive(Debug, Clone)]
pub(super) struct StageState {
    /// The file system.
    pub(super) node: NodeId,
    /// The image configuration, without history.
    pub(super) config: ImageConfig,
    /// Where a name first stands in `config.config.env`.
    env_places: HashMap<String, usize>,
    /// The variables a step sees.
    pub(super) environment: Environment,
    /// Whether `environment` is what reading `config.config.env` from the start would give.
    in_config_order: bool,
    /// The arguments declared.
    pub(super) arguments: Arguments,
    /// What the stage is for.
    pub(super) platform: Platform,
    /// The image at the bottom.
    pub(super) base: Option<ImageRequest>,
    /// Whether the recipe has said anything about the working directory.
    pub(super) workdir_set: bool,
}

impl StageState {
    /// `FROM scratch`.
    pub(super) fn from_scratch(node: NodeId, platform: &Platform) -> Self {
        let mut config = ImageConfig {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone(),
            config: RunConfig { working_dir: "/".to_owned(), ..RunConfig::default() },
            ..ImageConfig::default()
        };
        set_os_version(&mut config, platform.os_version.as_deref());
        Self::new(node, config, platform.clone(), None)
    }

    /// `FROM image`. Its triggers are the caller's part; the configuration carries them no further.
    pub(super) fn from_image(node: NodeId, image: &ImageRequest, base: &ImageConfig) -> Self {
        let mut config = ImageConfig {
            created: None,
            author: base.author.clone(),
            architecture: base.architecture.clone(),
            os: base.os.clone(),
            variant: base.variant.clone(),
            config: RunConfig { on_build: Vec::new(), ..base.config.clone() },
            rootfs: RootFs::default(),
            history: Vec::new(),
            other: base.other.clone(),
        };
        config.other.retain(|field, _| !NOT_INHERITED.contains(&field.as_str()));
        Self::new(node, config, image.platform.clone(), Some(image.clone()))
    }

    /// `FROM stage`: everything goes on but the triggers.
    pub(super) fn from_stage(mut base: Self) -> Self {
        base.config.config.on_build.clear();
        base.enter();
        base
    }

    fn new(node: NodeId, config: ImageConfig, platform: Platform, base: Option<ImageRequest>) -> Self {
        let mut env_places = HashMap::new();
        for (place, entry) in config.config.env.iter().enumerate() {
            env_places.entry(split_entry(entry).0.to_owned()).or_insert(place);
        }
        let mut state = Self {
            node,
            config,
            env_places,
            environment: Environment::default(),
            in_config_order: false,
            arguments: Arguments::default(),
            platform,
            base,
            workdir_set: false,
        };
        state.enter();
        state
    }

    /// What happens before the first step: the image's variables hold again, and `PATH` always has a value.
    fn enter(&mut self) {
        if self.platform.os != "windows" && !self.env_places.contains_key("PATH") {
            self.set_in_config("PATH", DEFAULT_PATH);
            self.in_config_order = false;
        }
        if !self.in_config_order {
            for entry in &self.config.config.env {
                let (name, value) = split_entry(entry);
                self.environment.set(name, value);
            }
            self.in_config_order = true;
        }
        let workdir = &mut self.config.config.working_dir;
        if !workdir.is_empty() {
            *workdir = path::workdir(workdir, workdir);
        }
    }

    /// `ENV name=value`.
    pub(super) fn set_env(&mut self, name: &str, value: &str) {
        self.in_config_order &= self.environment.get(name).is_none();
        self.environment.set(name, value);
        self.set_in_config(name, value);
    }

    /// The variables and arguments, for `ARG` to change.
    pub(super) fn argument_scope(&mut self) -> (&mut Environment, &mut Arguments) {
        self.in_config_order = false;
        (&mut self.environment, &mut self.arguments)
    }

    fn set_in_config(&mut self, name: &str, value: &str) {
        let env = &mut self.config.config.env;
        let entry = format!("{name}={value}");
        match self.env_places.get(name) {
            Some(place) => env[*place] = entry,
            None => {
                self.env_places.insert(name.to_owned(), env.len());
                env.push(entry);
            }
        }
    }

    /// The working directory of a step: absolute and clean.
    pub(super) fn workdir(&self) -> String {
        path::clean(&self.config.config.working_dir)
    }

    /// The same for a process, which passes through the directories that the path leaves again by `..`.
    pub(super) fn process_directory(&self) -> String {
        let written = &self.config.config.working_dir;
        let turns_back = written.starts_with('/') && written.split('/').any(|part| part == "..");
        if turns_back { written.clone() } else { self.workdir() }
    }
}

/// Writes what the image is for into the configuration of the finished target, and gives it back normalised. A platform
/// that was only assumed gives way to the base's own.
pub(super) fn settle_platform(config: &mut ImageConfig, wanted: &Platform, given: bool) -> Platform {
    if given || config.os.is_empty() || config.architecture.is_empty() {
        let same = config.os == wanted.os && config.architecture == wanted.architecture;
        config.os.clone_from(&wanted.os);
        config.architecture.clone_from(&wanted.architecture);
        if wanted.variant.is_some() || !same {
            config.variant.clone_from(&wanted.variant);
        }
        if wanted.os_version.is_some() || !same {
            set_os_version(config, wanted.os_version.as_deref());
        }
    }
    let mut platform = Platform {
        os: config.os.clone(),
        architecture: config.architecture.clone(),
        variant: config.variant.clone().filter(|variant| !variant.is_empty()),
        os_version: config.other.get("os.version").and_then(|version| version.as_str()).map(str::to_owned),
    };
    let text = match &platform.variant {
        Some(variant) => format!("{}/{}/{variant}", platform.os, platform.architecture),
        None => format!("{}/{}", platform.os, platform.architecture),
    };
    // A base may say anything here; what is no platform is left as it stands.
    if let Ok(normal) = text.parse::<Platform>() {
        platform = Platform { os_version: platform.os_version, ..normal };
        config.os.clone_from(&platform.os);
        config.architecture.clone_from(&platform.architecture);
        config.variant.clone_from(&platform.variant);
    }
    platform
}

fn set_os_version(config: &mut ImageConfig, version: Option<&str>) {
    match version.filter(|version| !version.is_empty()) {
        Some(version) => {
            config.other.insert("os.version".to_owned(), version.into());
        }
        None => {
            config.other.remove("os.version");
        }
    }
}

/// The name and value of an entry of `Env`; one without `=` has no value.
fn split_entry(entry: &str) -> (&str, &str) {
    entry.split_once('=').unwrap_or((entry, ""))
}
