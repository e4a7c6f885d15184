//! Leads the client to one address of a name. It takes one host both as the address and as the name that the server's
//! certificate must have, and tries the addresses of a name without a time limit for each. So where the name is checked, it
//! connects to a socket of ours, behind which is the connection to the address.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use tokio::io::copy;
use tokio::net::{TcpStream, UnixListener};
use uuid::Uuid;

/// A directory of ours with the socket, as long as the client connects.
pub struct Relay {
    directory: PathBuf,
}

impl Relay {
    /// Leads one client to the server, until one of them closes. `port`: it is part of the socket's name.
    pub fn start(mut server: TcpStream, port: u16) -> io::Result<Self> {
        let directory = std::env::temp_dir().join(format!("lanekeeper-{}", Uuid::new_v4()));
        DirBuilder::new().mode(0o700).create(&directory)?;
        let relay = Self { directory };
        let listener = UnixListener::bind(relay.directory.join(format!(".s.PGSQL.{port}")))?;
        tokio::spawn(async move {
            if let Ok((mut client, _)) = listener.accept().await {
                drop(listener);
                let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                    (client.split(), server.split());
                // Whoever closes ends it for the other one, too, which may be a host that is gone.
                tokio::select! {
                    _ = copy(&mut from_client, &mut to_server) => {}
                    _ = copy(&mut from_server, &mut to_client) => {}
                }
            }
        });
        Ok(relay)
    }

    /// Where the client looks for the socket.
    pub fn directory(&self) -> &PathBuf {
        &self.directory
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // The connection goes on without it. What stays is an empty directory below the one for temporary files.
        drop(std::fs::remove_dir_all(&self.directory));
    }
}
