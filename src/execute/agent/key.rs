//! A private key: the bytes of a file → what it is called, and signatures.
//!
//! Takes the formats that `ssh-keygen` and `openssl` write (OpenSSH's own, PKCS#8, and the older PEM forms of RSA and
//! ECDSA keys), without a passphrase. Gives the public key as SSH writes it, and signs. Never prints or copies out what
//! is private. Ed25519, ECDSA on P-256 and P-384, and RSA of 2048 to 4096 bits, which is what `ring` signs with.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use num_bigint::BigUint;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPairComponents, PublicKeyComponents};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaEncoding, RsaKeyPair,
};

use super::wire::{Reader, put_integer, put_string, without_zeros};

/// Why a file is no key that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is none in it.
    #[error("it is neither a socket nor a private key")]
    NotAKey,
    /// It takes a passphrase, and there is nobody to ask.
    #[error("it is protected by a passphrase: load it into an agent with ssh-add, and use --ssh NAME=$SSH_AUTH_SOCK")]
    Encrypted,
    /// A kind of key that cannot sign here.
    #[error(
        "it is a key of type {kind}; Ed25519, ECDSA P-256 and P-384, and RSA of 2048 to 4096 bits can be used by path, and \
         an agent can hold the others: ssh-add"
    )]
    Unsupported {
        /// What it is.
        kind: String,
    },
    /// It does not hold together.
    #[error("the private key in it is damaged: {reason}")]
    Damaged {
        /// What is wrong.
        reason: String,
    },
}

/// A private key.
pub(super) struct Key {
    /// The public key as SSH writes it (RFC 4253, section 6.6).
    pub public: Vec<u8>,
    signer: Signer,
}

enum Signer {
    Ed25519(Ed25519KeyPair),
    Ecdsa(&'static Curve, EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

/// A curve of ECDSA (RFC 5656).
struct Curve {
    name: &'static str,
    algorithm: &'static EcdsaSigningAlgorithm,
    /// The bytes of a private key.
    length: usize,
    /// The DER of its object identifier.
    oid: &'static [u8],
}

static CURVES: [Curve; 2] = [
    Curve {
        name: "nistp256",
        algorithm: &ECDSA_P256_SHA256_FIXED_SIGNING,
        length: 32,
        oid: &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
    },
    Curve {
        name: "nistp384",
        algorithm: &ECDSA_P384_SHA384_FIXED_SIGNING,
        length: 48,
        oid: &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22],
    },
];

/// How a signature with an RSA key is asked for (draft-ietf-sshm-ssh-agent, "Signature flags").
const RSA_SHA2_256: u32 = 2;
const RSA_SHA2_512: u32 = 4;

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("public", &STANDARD.encode(&self.public)).finish_non_exhaustive()
    }
}

impl Key {
    /// Reads the first private key of a file.
    ///
    /// # Errors
    /// See [`Error`].
    pub(super) fn read(file: &[u8]) -> Result<Self, Error> {
        let text = String::from_utf8_lossy(file);
        let Some((label, bytes)) = armoured(&text)? else { return Err(Error::NotAKey) };
        let signer = match label {
            "OPENSSH PRIVATE KEY" => of_openssh(&bytes)?,
            "RSA PRIVATE KEY" => Signer::Rsa(RsaKeyPair::from_der(&bytes).map_err(rejected)?),
            "EC PRIVATE KEY" => of_pkcs8(&wrapped_ec(&bytes)?)?,
            "PRIVATE KEY" => of_pkcs8(&bytes)?,
            "ENCRYPTED PRIVATE KEY" => return Err(Error::Encrypted),
            other => return Err(Error::Unsupported { kind: other.trim_end_matches(" PRIVATE KEY").to_owned() }),
        };
        Ok(Self { public: signer.public(), signer })
    }

    /// Signs, with the algorithm that the key has or, of an RSA key, the one that `flags` asks for. `None` if that
    /// cannot be had: SHA-1 is not.
    pub(super) fn sign(&self, data: &[u8], flags: u32) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        let (algorithm, signature) = match &self.signer {
            Signer::Ed25519(pair) => ("ssh-ed25519".to_owned(), pair.sign(data).as_ref().to_owned()),
            Signer::Ecdsa(curve, pair) => {
                let signed = pair.sign(&random, data).ok()?;
                let (r, s) = signed.as_ref().split_at_checked(curve.length)?;
                let mut both = Vec::new();
                put_integer(&mut both, r);
                put_integer(&mut both, s);
                (format!("ecdsa-sha2-{}", curve.name), both)
            }
            Signer::Rsa(pair) => {
                let (name, padding): (_, &'static dyn RsaEncoding) = match flags & (RSA_SHA2_256 | RSA_SHA2_512) {
                    0 => return None,
                    RSA_SHA2_512 => ("rsa-sha2-512", &RSA_PKCS1_SHA512),
                    _ => ("rsa-sha2-256", &RSA_PKCS1_SHA256),
                };
                let mut signed = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &random, data, &mut signed).ok()?;
                (name.to_owned(), signed)
            }
        };
        let mut out = Vec::new();
        put_string(&mut out, algorithm.as_bytes());
        put_string(&mut out, &signature);
        Some(out)
    }
}

impl Signer {
    fn public(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Ed25519(pair) => {
                put_string(&mut out, b"ssh-ed25519");
                put_string(&mut out, pair.public_key().as_ref());
            }
            Self::Ecdsa(curve, pair) => {
                put_string(&mut out, format!("ecdsa-sha2-{}", curve.name).as_bytes());
                put_string(&mut out, curve.name.as_bytes());
                put_string(&mut out, pair.public_key().as_ref());
            }
            Self::Rsa(pair) => {
                let public = PublicKeyComponents::<Vec<u8>>::from(pair.public());
                put_string(&mut out, b"ssh-rsa");
                put_integer(&mut out, &public.e);
                put_integer(&mut out, &public.n);
            }
        }
        out
    }
}

fn damaged(reason: &str) -> Error {
    Error::Damaged { reason: reason.to_owned() }
}

fn rejected(reason: ring::error::KeyRejected) -> Error {
    match reason.to_string().as_str() {
        kind @ ("TooSmall" | "TooLarge") => Error::Unsupported { kind: format!("RSA ({kind})") },
        reason => damaged(reason),
    }
}

/// The first private key between PEM's dashes (RFC 7468): its label and its bytes.
fn armoured(text: &str) -> Result<Option<(&str, Vec<u8>)>, Error> {
    let mut lines = text.lines().map(str::trim);
    let Some(label) = lines.by_ref().find_map(private_label) else { return Ok(None) };
    let mut content = String::new();
    for line in lines {
        if line.starts_with("-----END ") {
            let bytes = STANDARD.decode(content).map_err(|_| damaged("it is not base64"))?;
            return Ok(Some((label, bytes)));
        }
        // Headers of the older forms: `Proc-Type: 4,ENCRYPTED`.
        match line.contains(':') {
            true if line.contains("ENCRYPTED") => return Err(Error::Encrypted),
            true => {}
            false => content.push_str(line),
        }
    }
    Err(damaged("it is cut off"))
}

fn private_label(line: &str) -> Option<&str> {
    let label = line.strip_prefix("-----BEGIN ")?.strip_suffix("-----")?;
    label.ends_with("PRIVATE KEY").then_some(label)
}

/// OpenSSH's own format (its PROTOCOL.key).
fn of_openssh(bytes: &[u8]) -> Result<Signer, Error> {
    const MAGIC: &[u8] = b"openssh-key-v1\0";
    let cut = || damaged("it is cut off");
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| damaged("it does not begin as OpenSSH's keys do"))?;
    let mut reader = Reader::new(rest);
    let cipher = reader.string().ok_or_else(cut)?;
    let (_function, _options) = (reader.string().ok_or_else(cut)?, reader.string().ok_or_else(cut)?);
    if cipher != b"none" {
        return Err(Error::Encrypted);
    }
    if reader.number().ok_or_else(cut)? != 1 {
        return Err(damaged("it holds several keys"));
    }
    let _public = reader.string().ok_or_else(cut)?;
    let mut private = Reader::new(reader.string().ok_or_else(cut)?);
    if private.number().ok_or_else(cut)? != private.number().ok_or_else(cut)? {
        return Err(damaged("its check numbers differ"));
    }
    let kind = private.string().ok_or_else(cut)?;
    match kind {
        b"ssh-ed25519" => ed25519(&mut private).ok_or_else(cut)?,
        b"ssh-rsa" => rsa(&mut private).ok_or_else(cut)?,
        _ => {
            let name = kind.strip_prefix(b"ecdsa-sha2-").unwrap_or_default();
            let curve = CURVES.iter().find(|curve| curve.name.as_bytes() == name);
            let unsupported = || Error::Unsupported { kind: String::from_utf8_lossy(kind).into_owned() };
            ecdsa(curve.ok_or_else(unsupported)?, &mut private).ok_or_else(cut)?
        }
    }
}

fn ed25519(private: &mut Reader<'_>) -> Option<Result<Signer, Error>> {
    let public = private.string()?;
    let seed = private.string()?.get(..32)?;
    Some(Ed25519KeyPair::from_seed_and_public_key(seed, public).map(Signer::Ed25519).map_err(rejected))
}

fn ecdsa(curve: &'static Curve, private: &mut Reader<'_>) -> Option<Result<Signer, Error>> {
    let _name = private.string()?;
    let public = private.string()?;
    let scalar = private.integer()?;
    let mut padded = vec![0; curve.length.checked_sub(scalar.len())?];
    padded.extend_from_slice(scalar);
    let random = SystemRandom::new();
    let pair = EcdsaKeyPair::from_private_key_and_public_key(curve.algorithm, &padded, public, &random);
    Some(pair.map(|pair| Signer::Ecdsa(curve, pair)).map_err(rejected))
}

fn rsa(private: &mut Reader<'_>) -> Option<Result<Signer, Error>> {
    let [n, e, d, _inverse, p, q] = [
        private.integer()?,
        private.integer()?,
        private.integer()?,
        private.integer()?,
        private.integer()?,
        private.integer()?,
    ];
    let number = BigUint::from_bytes_be;
    // The rest of the Chinese remainder form is not in the file, and takes the larger prime first.
    let (p, q) = if number(p) < number(q) { (q, p) } else { (p, q) };
    let one = BigUint::from(1_u32);
    let exponent = |prime: &[u8]| {
        let below = number(prime);
        (below > one).then(|| (number(d) % (below - &one)).to_bytes_be())
    };
    let components = KeyPairComponents {
        public_key: PublicKeyComponents { n, e },
        d,
        p,
        q,
        dP: &exponent(p)?,
        dQ: &exponent(q)?,
        qInv: &number(q).modinv(&number(p))?.to_bytes_be(),
    };
    Some(RsaKeyPair::from_components(&components).map(Signer::Rsa).map_err(rejected))
}

/// PKCS#8 (RFC 5958) without a passphrase: whichever kind it is.
fn of_pkcs8(bytes: &[u8]) -> Result<Signer, Error> {
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes) {
        return Ok(Signer::Ed25519(pair));
    }
    let random = SystemRandom::new();
    for curve in &CURVES {
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(curve.algorithm, bytes, &random) {
            return Ok(Signer::Ecdsa(curve, pair));
        }
    }
    RsaKeyPair::from_pkcs8(bytes).map(Signer::Rsa).map_err(|reason| match reason.to_string().as_str() {
        "WrongAlgorithm" => Error::Unsupported { kind: "PKCS#8 with another algorithm".to_owned() },
        _ => rejected(reason),
    })
}

/// An ECDSA key by itself (RFC 5915) as PKCS#8, which names the curve outside.
fn wrapped_ec(key: &[u8]) -> Result<Vec<u8>, Error> {
    const INTEGER_0: &[u8] = &[0x02, 0x01, 0x00];
    const EC_PUBLIC_KEY: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    let names = |curve: &&Curve| key.windows(curve.oid.len()).any(|part| part == curve.oid);
    let curve =
        CURVES.iter().find(names).ok_or_else(|| Error::Unsupported { kind: "ECDSA on another curve".to_owned() })?;
    let algorithm = der(0x30, &[EC_PUBLIC_KEY, curve.oid].concat());
    Ok(der(0x30, &[INTEGER_0, &algorithm, &der(0x04, key)].concat()))
}

/// One DER element; the content is a key's, so that two bytes hold its length.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut out = vec![tag];
    match without_zeros(&length) {
        [] => out.push(0),
        [short @ ..=0x7f] => out.push(*short),
        [long] => out.extend([0x81, *long]),
        _ => {
            out.push(0x82);
            out.extend(length);
        }
    }
    out.extend_from_slice(content);
    out
}
