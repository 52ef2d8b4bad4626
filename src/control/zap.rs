//! Who gets in by TCP: libzmq asks at each handshake, by ZAP (RFC 27), and this answers from the keys that are known now.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::access::{Access, PublicKey};
use crate::sys::readiness;

use super::transport::{BindError, uninterrupted};

/// Where libzmq asks, in each context.
const ENDPOINT: &str = "inproc://zeromq.zap.01";
/// What the endpoints under keys are called there.
pub(super) const DOMAIN: &str = "procman";
/// The property of a message that holds what is answered here as user: the client's public key in Z85.
pub(super) const USER_ID: &str = "User-Id";
/// The only version there is.
const VERSION: &[u8] = b"1.0";
/// Frames of a question about a client with a CURVE key.
const FRAMES: usize = 7;
/// Between two lines in the log about strangers: whoever knocks a thousand times a second does not fill it.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// Why the doorkeeper cannot stand.
pub const ASK_FOR_KEYS: &str = "ask for keys at";

/// What to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Welcome(PublicKey),
    /// 400, and why for the log.
    Stranger(&'static str),
    /// 500.
    Nonsense,
}

/// Stands at the doors.
pub struct Doorkeeper {
    socket: zmq::Socket,
    access: watch::Receiver<Arc<Access>>,
    refused: Refused,
}

impl std::fmt::Debug for Doorkeeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Doorkeeper").finish_non_exhaustive()
    }
}

/// Told of each refusal, with the address that it was about. Called on the runtime's threads: it must not block.
pub type Refused = Arc<dyn Fn(&str) + Send + Sync>;

impl Doorkeeper {
    /// Takes its place, which has to be before any endpoint with keys is bound in this context.
    ///
    /// # Errors
    /// libzmq refuses a socket (descriptors used up).
    pub fn stand(context: &zmq::Context, access: watch::Receiver<Arc<Access>>) -> Result<Self, BindError> {
        let open = || -> zmq::Result<zmq::Socket> {
            let socket = context.socket(zmq::REP)?;
            socket.set_linger(0)?;
            socket.bind(ENDPOINT)?;
            Ok(socket)
        };
        let socket = open().map_err(|error| BindError::new(ASK_FOR_KEYS, ENDPOINT, error))?;
        Ok(Self { socket, access, refused: Arc::new(|_| ()) })
    }

    /// Answers until `closing` is true. Each refusal is told to `refused`.
    ///
    /// # Errors
    /// Its socket cannot be watched; nobody gets in any more.
    pub async fn serve(mut self, refused: Refused, mut closing: watch::Receiver<bool>) -> io::Result<()> {
        self.refused = refused;
        let signal = readiness::watch_duplicate(self.socket.get_fd().map_err(io::Error::from)?)?;
        let mut log = Log { told: None, untold: 0 };
        loop {
            while self.answer_one(&mut log)? {}
            tokio::select! {
                ready = signal.readable() => ready?.clear_ready(),
                _ = closing.wait_for(|closing| *closing) => return Ok(()),
            }
        }
    }

    /// Whether there was a question.
    fn answer_one(&self, log: &mut Log) -> io::Result<bool> {
        let frames = match uninterrupted(|| self.socket.recv_multipart(zmq::DONTWAIT)) {
            Ok(frames) => frames,
            Err(zmq::Error::EAGAIN) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let verdict = judge(&frames, &self.access.borrow());
        if let Verdict::Stranger(why) = verdict {
            let address = frames.get(3).map_or_else(String::new, |address| String::from_utf8_lossy(address).into_owned());
            log.tell(&address, why);
            (self.refused)(&address);
        }
        let request_id = frames.get(1).map_or(&[][..], |id| &id[..]);
        uninterrupted(|| self.socket.send_multipart(reply(request_id, verdict), zmq::DONTWAIT))?;
        Ok(true)
    }
}

/// Tells of strangers, not of each.
struct Log {
    told: Option<Instant>,
    untold: u64,
}

impl Log {
    fn tell(&mut self, address: &str, why: &str) {
        if self.told.is_some_and(|told| told.elapsed() < TOLD_EVERY) {
            self.untold += 1;
            return;
        }
        tracing::warn!(address = %address.escape_default(), why, not_told = self.untold, "somebody was refused at a TCP endpoint");
        *self = Self { told: Some(Instant::now()), untold: 0 };
    }
}

/// Version, request id, domain, address, routing id, mechanism, credentials: 32 bytes of a key that its owner has proved to have.
fn judge(frames: &[Vec<u8>], access: &Access) -> Verdict {
    let [version, _, domain, _, _, mechanism, credentials] = frames else {
        // Of a client without CURVE there are no credentials; libzmq itself refuses it before that.
        return if frames.len() < FRAMES { Verdict::Stranger("it has no key") } else { Verdict::Nonsense };
    };
    if version != VERSION || domain != DOMAIN.as_bytes() {
        return Verdict::Nonsense;
    }
    if mechanism != b"CURVE" {
        return Verdict::Stranger("it has no key");
    }
    match PublicKey::of(credentials) {
        Some(key) if access.clients.get(&key).is_some() => Verdict::Welcome(key),
        Some(_) => Verdict::Stranger("nobody with its key is in [[control.client]]"),
        None => Verdict::Nonsense,
    }
}

/// Version, request id, status code, status text, user, metadata.
fn reply(request_id: &[u8], verdict: Verdict) -> [Vec<u8>; 6] {
    let (code, text, user) = match verdict {
        Verdict::Welcome(key) => ("200", "OK", key.to_string()),
        // Whoever is refused learns no more than that.
        Verdict::Stranger(_) => ("400", "this key is not known here", String::new()),
        Verdict::Nonsense => ("500", "not understood", String::new()),
    };
    [VERSION.to_vec(), request_id.to_vec(), code.into(), text.into(), user.into(), Vec::new()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Client, Clients, Role, Scope};
    use proptest::prelude::*;

    fn access(key: [u8; 32]) -> Access {
        let public_key = PublicKey::of(&key).unwrap();
        Access { server: None, clients: Clients::of([Client { name: "a".into(), public_key, role: Role::Read, scope: Scope::ALL }]) }
    }

    fn question(mechanism: &[u8], key: &[u8]) -> Vec<Vec<u8>> {
        [VERSION, b"1", DOMAIN.as_bytes(), b"127.0.0.1", b"", mechanism, key].map(<[u8]>::to_vec).to_vec()
    }

    #[test]
    fn only_known_keys_are_welcome() {
        let access = access([7; 32]);
        let key = PublicKey::of(&[7; 32]).unwrap();
        assert_eq!(judge(&question(b"CURVE", &[7; 32]), &access), Verdict::Welcome(key));
        assert!(matches!(judge(&question(b"CURVE", &[8; 32]), &access), Verdict::Stranger(_)));
        assert!(matches!(judge(&question(b"PLAIN", &[7; 32]), &access), Verdict::Stranger(_)));
        assert!(matches!(judge(&question(b"NULL", &[])[..6], &access), Verdict::Stranger(_)));
        assert_eq!(judge(&question(b"CURVE", &[7; 31]), &access), Verdict::Nonsense);
        let mut other = question(b"CURVE", &[7; 32]);
        other[2] = b"elsewhere".to_vec();
        assert_eq!(judge(&other, &access), Verdict::Nonsense);
        let welcome = reply(b"1", Verdict::Welcome(key));
        assert_eq!((&welcome[2][..], String::from_utf8(welcome[4].clone()).unwrap().parse()), (&b"200"[..], Ok(key)));
    }

    proptest! {
        #[test]
        fn nobody_gets_in_by_nonsense(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..10)) {
            let verdict = judge(&frames, &access([7; 32]));
            prop_assert!(!matches!(verdict, Verdict::Welcome(_)));
            prop_assert!(&reply(b"1", verdict)[2] != b"200");
        }
    }
}
