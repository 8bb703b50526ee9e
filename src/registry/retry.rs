//! How often, and after which wait, something that may pass is tried again.
//!
//! Takes an error, gives a wait or none. The wait doubles from the one in the settings, is spread at random so that many
//! builders do not come back at once, and is never shorter than a `Retry-After`; a host that asks for more than a minute
//! is not waited for.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime};

use ureq::http::{HeaderMap, header};

use super::error::Error;
use crate::settings::Network;

/// The longest wait that doubling leads to.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(10);

/// The longest `Retry-After` that is waited for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

/// What is left of the willingness to try one thing again.
#[derive(Debug)]
pub(super) struct Patience {
    all: u32,
    left: u32,
    first: Duration,
}

impl Patience {
    pub(super) fn new(network: &Network) -> Self {
        Self { all: network.retries, left: network.retries, first: network.retry_delay }
    }

    /// Makes the willingness whole again, after real progress.
    pub(super) fn refill(&mut self) {
        self.left = self.all;
    }

    /// The wait before the next attempt after `error`; `None` where there shall be none.
    pub(super) fn wait(&mut self, error: &Error) -> Option<Duration> {
        if !error.is_transient() {
            return None;
        }
        // Running into a time-out takes long enough that two are more telling than five.
        let cost = if matches!(error, Error::Timeout { .. }) { self.all.div_ceil(2).max(1) } else { 1 };
        let round = self.all - self.left;
        self.left = self.left.checked_sub(cost)?;
        let asked = match error {
            Error::RateLimited { retry_after, .. } | Error::Unavailable { retry_after, .. } => {
                retry_after.unwrap_or_default()
            }
            _ => Duration::ZERO,
        };
        (asked <= LONGEST_RETRY_AFTER).then(|| asked.max(self.back_off(round)))
    }

    fn back_off(&self, round: u32) -> Duration {
        let whole = self.first.saturating_mul(2_u32.saturating_pow(round)).min(LONGEST_BACK_OFF);
        // A fresh hasher is seeded at random: enough to keep builders apart.
        let part = RandomState::new().hash_one(round) % 512;
        whole / 2 + whole.mul_f64(part as f64 / 1024.0)
    }
}

/// The wait that a `Retry-After` header asks for, in seconds or as a date (RFC 9110, 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(SystemTime::from(date).duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::error::{Item, Said, Target};

    fn unavailable(retry_after: Option<u64>) -> Error {
        let target = Target { registry: "r".into(), repository: "a".into(), item: Item::Tag("t".into()) };
        let retry_after = retry_after.map(Duration::from_secs);
        Error::Unavailable {
            host: "r".into(),
            target: Box::new(target),
            status: 503,
            retry_after,
            detail: Said::default(),
        }
    }

    #[test]
    fn waits_grow_and_end() {
        let network = Network { retries: 3, retry_delay: Duration::from_secs(1), ..Network::default() };
        let mut patience = Patience::new(&network);
        for whole in [1, 2, 4] {
            let wait = patience.wait(&unavailable(None)).unwrap();
            assert!(wait >= Duration::from_millis(whole * 500) && wait <= Duration::from_secs(whole), "{wait:?}");
        }
        assert_eq!(patience.wait(&unavailable(None)), None);
        patience.refill();
        assert_eq!(patience.wait(&unavailable(Some(30))), Some(Duration::from_secs(30)));
        assert_eq!(patience.wait(&unavailable(Some(3600))), None);
        patience.refill();
        assert_eq!(patience.wait(&Error::Cancelled), None);
    }

    #[test]
    fn reads_retry_after() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_445_412_480); // 2015-10-21 07:28:00 UTC
        for (text, expected) in [
            ("120", Some(120)),
            ("Wed, 21 Oct 2015 07:28:30 GMT", Some(30)),
            ("Wed, 21 Oct 2015 07:27:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, text.parse().unwrap())]);
            assert_eq!(retry_after(&headers, now), expected.map(Duration::from_secs), "{text}");
        }
    }
}
