//! A real nginx on free ports of loopback, as the yardstick for who a request comes from: it answers `$remote_addr`.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::client::Connection;

/// The networks that every test of addresses trusts, beside loopback.
pub const TRUSTED: &str = "10.0.0.0/8,2001:db8:aaaa::/48,192.0.2.7";

/// An nginx whose servers differ in whom they believe.
pub struct Nginx {
    /// Trusts loopback and [`TRUSTED`], and walks `X-Forwarded-For`.
    pub trusting: SocketAddr,
    /// Trusts [`TRUSTED`] alone, so it doesn't believe a connection from loopback.
    pub untrusting: SocketAddr,
    /// Wants a PROXY header and takes the address from it.
    pub proxy_protocol: SocketAddr,
    child: Child,
    _folder: TempDir,
}

impl Nginx {
    pub async fn start() -> Nginx {
        loop {
            // Another process may take a port before nginx does; then nginx ends, and others are tried.
            let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
            let [trusting, untrusting, proxy_protocol] =
                listeners.each_ref().map(|listener| listener.local_addr().unwrap());
            drop(listeners);
            let folder = TempDir::new().unwrap();
            let config = config(folder.path(), trusting, untrusting, proxy_protocol);
            std::fs::write(folder.path().join("nginx.conf"), config).unwrap();
            let child = spawn(folder.path());
            let mut nginx = Nginx { trusting, untrusting, proxy_protocol, child, _folder: folder };
            if nginx.is_up().await {
                return nginx;
            }
        }
    }

    async fn is_up(&mut self) -> bool {
        for _ in 0..1000 {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if TcpStream::connect(self.proxy_protocol).await.is_ok() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Debian puts it where only root's PATH looks.
fn spawn(folder: &Path) -> Child {
    let installed =
        ["/usr/sbin/nginx", "/usr/local/sbin/nginx"].into_iter().find(|path| Path::new(path).exists());
    Command::new(installed.unwrap_or("nginx"))
        .args(["-c", "nginx.conf", "-e", "error.log", "-p"])
        .arg(folder)
        .stderr(Stdio::null())
        .spawn()
        .expect("nginx; scripts/test installs it")
}

fn config(folder: &Path, trusting: SocketAddr, untrusting: SocketAddr, proxy_protocol: SocketAddr) -> String {
    let folder = folder.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {folder}/{name};"))
        .concat();
    let trusted: String = TRUSTED.split(',').map(|network| format!("set_real_ip_from {network};")).collect();
    let answer = "location / { return 200 $remote_addr; }";
    format!(
        "daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
         events {{}}
         http {{
             access_log off; default_type text/plain; {temporary}
             keepalive_requests 1000000; large_client_header_buffers 4 32k;
             real_ip_header X-Forwarded-For; real_ip_recursive on; {trusted}
             server {{ listen {trusting}; set_real_ip_from 127.0.0.1; {trusted} {answer} }}
             server {{ listen {untrusting}; {answer} }}
             server {{
                 listen {proxy_protocol} proxy_protocol; real_ip_header proxy_protocol;
                 set_real_ip_from 127.0.0.1; {answer}
             }}
         }}"
    )
}

/// Asks a server of nginx for the client's address, on a connection that is kept.
pub async fn remote_address(connection: &mut Connection, lines: &[Vec<u8>]) -> IpAddr {
    let mut request = b"GET / HTTP/1.1\r\nHost: x\r\n".to_vec();
    for line in lines {
        request.extend_from_slice(&[b"X-Forwarded-For: ", line.as_slice(), b"\r\n"].concat());
    }
    connection.send([request, b"\r\n".to_vec()].concat()).await;
    let answer = connection.answer().await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body.parse::<IpAddr>().unwrap().to_canonical()
}
