//! Why a connection was lost, in one sentence with what to do.

use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, DisconnectReasonCode};
use rumqttc::v5::{ConnectionError, StateError};

/// Whether another client has taken this one's id.
pub fn is_taken_over(error: &ConnectionError) -> bool {
    let taken_over = DisconnectReasonCode::SessionTakenOver;
    matches!(error, ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. }) if *reason_code == taken_over)
}

/// The sentence.
pub fn explain(error: &ConnectionError) -> String {
    match error {
        _ if is_taken_over(error) => {
            "another client has connected with this client id; give each daemon its own device or client_id".to_owned()
        }
        ConnectionError::ConnectionRefused(
            ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized,
        ) => {
            "the broker refused this user name and password; check username and password".to_owned()
        }
        ConnectionError::ConnectionRefused(code) => {
            format!("the broker refused the connection: {code:?}")
        }
        ConnectionError::Tls(error) => {
            format!("TLS failed: {error}; check ca_file, client_cert and the broker's name")
        }
        ConnectionError::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            "nobody listens at the broker's address".to_owned()
        }
        // TLS 1.3 tells a client that its certificate is refused only after the handshake.
        error if error.to_string().contains("fatal alert") => {
            format!("TLS failed: {error}; check client_cert and client_key")
        }
        ConnectionError::Timeout(_) => "the broker did not answer in time".to_owned(),
        error => error.to_string(),
    }
}
