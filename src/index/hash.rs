//! The digests that indexes publish, as the name a file is kept under and as the check of what arrived.

use std::fmt;

use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha512};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Sha1,
    Sha256,
    Sha512,
}

/// What a file must have. It is written `sha256-<hex>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash {
    kind: Kind,
    hex: String,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Sha1, Self::Sha256, Self::Sha512];

    const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    const fn bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

impl Hash {
    /// Takes a digest in hexadecimal; none if it is not one of that kind.
    #[must_use]
    pub fn from_hex(kind: Kind, hex: &str) -> Option<Self> {
        let right = hex.len() == kind.bytes() * 2 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        right.then(|| Self { kind, hex: hex.to_ascii_lowercase() })
    }

    /// Reads the form it is written in.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (name, hex) = text.split_once('-')?;
        Self::from_hex(Kind::ALL.into_iter().find(|kind| kind.name() == name)?, hex)
    }

    /// Takes the strongest of an `integrity` as npm writes it: `sha512-<base64> sha1-<base64>`.
    #[must_use]
    pub fn from_integrity(text: &str) -> Option<Self> {
        let one = |word: &str| {
            let (name, value) = word.split_once('-')?;
            let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name)?;
            let bytes = base64(value.split('?').next()?)?;
            Self::from_hex(kind, &hex(&bytes))
        };
        text.split_ascii_whitespace().filter_map(one).max()
    }

    /// Begins to compute what is compared with it.
    #[must_use]
    pub fn hasher(&self) -> Hasher {
        match self.kind {
            Kind::Sha1 => Hasher::Sha1(Sha1::default()),
            Kind::Sha256 => Hasher::Sha256(Sha256::default()),
            Kind::Sha512 => Hasher::Sha512(Sha512::default()),
        }
    }

    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    #[must_use]
    pub fn hex(&self) -> &str {
        &self.hex
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}", self.kind.name(), self.hex)
    }
}

/// A digest under way.
pub enum Hasher {
    Sha1(Sha1),
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha1(hasher) => hasher.update(bytes),
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    #[must_use]
    pub fn finish(self) -> Hash {
        let (kind, bytes): (Kind, Vec<u8>) = match self {
            Self::Sha1(hasher) => (Kind::Sha1, hasher.finalize().to_vec()),
            Self::Sha256(hasher) => (Kind::Sha256, hasher.finalize().to_vec()),
            Self::Sha512(hasher) => (Kind::Sha512, hasher.finalize().to_vec()),
        };
        Hash { kind, hex: hex(&bytes) }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0x00ff_ffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integrity_gives_the_strongest_digest_it_has() {
        let mut sha512 = Hasher::Sha512(Sha512::default());
        sha512.update(b"abc");
        let text = "sha1-qZk+NkcGgWq6PiVxeFDCbJzQ2J0= sha512-3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw==";
        assert_eq!(Hash::from_integrity(text), Some(sha512.finish()));
        assert_eq!(Hash::from_integrity("md5-kAFQmDzST7DWlj99KOF/cg=="), None);
        assert_eq!(Hash::from_integrity("sha512-!!"), None);
        assert_eq!(Hash::from_integrity("sha512-AAAA"), None, "too short");
    }

    #[test]
    fn a_digest_survives_its_own_name() {
        let hash = Hash::from_hex(Kind::Sha256, &"0A".repeat(32)).unwrap();
        assert_eq!(Hash::parse(&hash.to_string()), Some(hash));
        for wrong in ["sha256-00", "md5-00", "", "sha256", "sha256-../../../../etc/passwd"] {
            assert_eq!(Hash::parse(wrong), None, "{wrong}");
        }
    }
}
