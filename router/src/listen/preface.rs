//! Reading the PROXY header off a new connection: no byte more than the header, so that whatever
//! speaks next on it, TLS or HTTP, finds it as if the header had never been there.

use std::io;
use std::time::Duration;

use shared::time_limit;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::proxy_protocol::{
    Addresses, HeaderError, PREFIX, V1_MAX, V2_FIXED, Version, parse_v1, parse_v2, v2_length,
    version,
};

/// Time for the header. A balancer sends it with the connection; 3 s are for a lost packet, which
/// the specification asks to allow for.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why no header could be read.
#[derive(Debug, thiserror::Error)]
pub enum PrefaceError {
    /// It is wrong, or not there.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The connection broke off.
    #[error("it broke off in its PROXY header: {0}")]
    Io(#[from] io::Error),
    /// It took too long.
    #[error("its PROXY header took longer than {} s", TIMEOUT.as_secs())]
    TimedOut,
}

/// Reads the header that `stream` has to begin with. `None` leaves the connection's own addresses.
///
/// # Errors
///
/// [`PrefaceError`]; nothing on the connection can be trusted then.
pub async fn read(stream: &mut TcpStream) -> Result<Option<Addresses>, PrefaceError> {
    time_limit::timeout(TIMEOUT, read_header(stream)).await.unwrap_or(Err(PrefaceError::TimedOut))
}

async fn read_header(stream: &mut TcpStream) -> Result<Option<Addresses>, PrefaceError> {
    let mut fixed = [0; V2_FIXED];
    let (prefix, more) = fixed.split_first_chunk_mut::<PREFIX>().ok_or(HeaderError::Malformed)?;
    let _length = stream.read_exact(prefix).await?;
    match version(prefix)? {
        Version::One => {
            let mut line = prefix.to_vec();
            while !line.ends_with(b"\n") {
                read_line_part(stream, &mut line).await?;
            }
            Ok(parse_v1(&line)?)
        }
        Version::Two => {
            let _length = stream.read_exact(more).await?;
            let mut rest = vec![0; v2_length(&fixed)?];
            let _length = stream.read_exact(&mut rest).await?;
            Ok(parse_v2(&fixed, &rest)?)
        }
    }
}

/// Takes what is there of the line off the connection, up to its end and not beyond.
async fn read_line_part(stream: &mut TcpStream, line: &mut Vec<u8>) -> Result<(), PrefaceError> {
    let mut part = [0; V1_MAX];
    let room = part.get_mut(..V1_MAX.saturating_sub(line.len())).unwrap_or_default();
    if room.is_empty() {
        return Err(HeaderError::TooLong.into());
    }
    let seen = stream.peek(room).await?;
    if seen == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    let seen = room.get_mut(..seen).unwrap_or_default();
    let end = seen.iter().position(|byte| *byte == b'\n').map_or(seen.len(), |at| at + 1);
    let part = seen.get_mut(..end).unwrap_or_default();
    let _length = stream.read_exact(part).await?;
    line.extend_from_slice(part);
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::{HeaderError, PrefaceError, TIMEOUT, read};

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ours, theirs) = tokio::join!(listener.accept(), TcpStream::connect(address));
        let theirs = theirs.unwrap();
        theirs.set_nodelay(true).unwrap();
        (ours.unwrap().0, theirs)
    }

    #[tokio::test]
    async fn the_header_is_taken_and_nothing_behind_it() {
        let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f\x01\x02\x03\x04\x05\x06\x07\x08\0\x50\0\x51\x04\0\0";
        for header in [&b"PROXY TCP4 1.2.3.4 5.6.7.8 80 81\r\n"[..], v2] {
            let (mut ours, mut theirs) = pair().await;
            let whole = [header, b"GET /\n"].concat();
            // Byte by byte, so that every cut occurs, and at once.
            let writing = async {
                for byte in &whole {
                    theirs.write_all(&[*byte]).await.unwrap();
                    tokio::task::yield_now().await;
                }
                theirs.write_all(&whole).await.unwrap();
                theirs.shutdown().await.unwrap();
            };
            let reading = async {
                for _ in 0..2 {
                    let addresses = read(&mut ours).await.unwrap().unwrap();
                    assert_eq!(addresses.source.to_string(), "1.2.3.4:80");
                    assert_eq!(addresses.destination.to_string(), "5.6.7.8:81");
                    let mut rest = [0; 6];
                    ours.read_exact(&mut rest).await.unwrap();
                    assert_eq!(&rest, b"GET /\n");
                }
            };
            tokio::join!(writing, reading);
        }
    }

    #[tokio::test]
    async fn a_wrong_or_endless_header_is_refused() {
        let endless = [b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat();
        for (bytes, error) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], HeaderError::NoHeader),
            (&endless, HeaderError::TooLong),
            (b"PROXY TCP4 1.2.3.4\r\n", HeaderError::Malformed),
        ] {
            let (mut ours, mut theirs) = pair().await;
            theirs.write_all(bytes).await.unwrap();
            let result = read(&mut ours).await;
            assert!(matches!(result, Err(PrefaceError::Header(e)) if e == error), "{result:?}");
        }
        let (mut ours, theirs) = pair().await;
        drop(theirs);
        assert!(matches!(read(&mut ours).await, Err(PrefaceError::Io(_))));
    }

    #[tokio::test]
    async fn a_silent_connection_is_given_up() {
        let (mut ours, mut theirs) = pair().await;
        theirs.write_all(b"PROXY TCP4 1.2.3.4").await.unwrap();
        tokio::time::pause();
        let before = tokio::time::Instant::now();
        assert!(matches!(read(&mut ours).await, Err(PrefaceError::TimedOut)));
        assert_eq!(before.elapsed().as_secs(), TIMEOUT.as_secs());
    }
}
