//! An upgrade, until the new program answers: whoever asks something else next asks that one.

use std::time::{Duration, Instant};

use super::connection::{Answer, Client, ClientOptions};
use super::error::ClientError;
use super::peer::Peer;
use crate::protocol::reply::Info;
use crate::protocol::request::{Command, NoArgs};

/// Between two looks at whether it answers.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Asks for it, and returns once another start of the daemon answers than the one before. A refusal is returned at once.
///
/// # Errors
/// Every [`ClientError`] but `Refused`: that of asking, or what the last try to reach the new program said.
pub(super) fn upgrade(client: &mut Client, timeout: Duration) -> Result<Answer, ClientError> {
    let start = Instant::now();
    let info = Command::Info(NoArgs {});
    let before: Info = client.request(&info)?;
    let answer = client.ask(&Command::Upgrade(NoArgs {}))?;
    if matches!(answer.json()?.get("success"), Some(serde_json::Value::Bool(true))) {
        successor(client.peer(), &before.uuid, start + timeout)?;
    }
    Ok(answer)
}

/// What the one that comes after that one says of itself.
fn successor(peer: &Peer, before: &str, deadline: Instant) -> Result<Info, ClientError> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // A question that the former one does not come to answer any more is lost: the next one goes out on a new connection.
        let options = ClientOptions { timeout: left.min(Duration::from_secs(1)) };
        let asked = Client::connect_to(peer, options).and_then(|mut client| client.request::<Info>(&Command::Info(NoArgs {})));
        match asked {
            Ok(info) if info.uuid != before => return Ok(info),
            Ok(_) | Err(ClientError::Unreachable { .. } | ClientError::Disconnected { .. } | ClientError::Timeout { .. })
                if Instant::now() + LOOK_AGAIN < deadline => {}
            Ok(_) => return Err(ClientError::Timeout { endpoint: peer.endpoint.clone(), waited: left, greeted: true }),
            Err(error) => return Err(error),
        }
        std::thread::park_timeout(LOOK_AGAIN);
    }
}
