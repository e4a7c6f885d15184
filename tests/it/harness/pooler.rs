//! A pooler in transaction mode between a client and PostgreSQL, as `PgBouncer` is with `pool_mode = transaction`.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a client that prefers TLS asks first.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Listens until the test ends. Of each client, every transaction is done by the other one of two sessions. The server must
/// ask for no password.
pub async fn pool_transactions(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            // It ends when either side does.
            tokio::spawn(async move { drop(serve(client, server).await) });
        }
    });
    address
}

async fn serve(mut client: TcpStream, server: SocketAddr) -> io::Result<()> {
    let mut login = body(&mut client, Vec::new()).await?;
    if login == SSL_REQUEST {
        client.write_all(b"N").await?;
        login = body(&mut client, Vec::new()).await?;
    }
    let mut sessions = [TcpStream::connect(server).await?, TcpStream::connect(server).await?];
    for (index, session) in sessions.iter_mut().enumerate() {
        session.write_all(&login).await?;
        loop {
            let message = message(session).await?;
            if index == 0 {
                client.write_all(&message).await?;
            }
            if message[0] == b'Z' {
                break;
            }
        }
    }
    let mut current = 0;
    loop {
        let asked = message(&mut client).await?;
        sessions[current].write_all(&asked).await?;
        // The server answers what was asked up to a Sync, or a simple query.
        if matches!(asked[0], b'S' | b'Q') {
            loop {
                let answer = message(&mut sessions[current]).await?;
                client.write_all(&answer).await?;
                if answer[0] == b'Z' {
                    let is_idle = answer[5] == b'I';
                    current = if is_idle { 1 - current } else { current };
                    break;
                }
            }
        }
    }
}

/// A message with its type.
async fn message(from: &mut TcpStream) -> io::Result<Vec<u8>> {
    let kind = from.read_u8().await?;
    body(from, vec![kind]).await
}

/// The length, which counts itself, and what follows it.
async fn body(from: &mut TcpStream, mut message: Vec<u8>) -> io::Result<Vec<u8>> {
    let length = from.read_u32().await?;
    message.extend(length.to_be_bytes());
    let begin = message.len();
    message.resize(begin + length.saturating_sub(4) as usize, 0);
    from.read_exact(&mut message[begin..]).await?;
    Ok(message)
}
