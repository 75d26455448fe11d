//! nginx: any configuration of it, and one as an https origin that shows what it was asked for and by whom.

use crate::Authority;
use gateward_testkit::{eventually, free_port};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// nginx in the foreground on a free port of 127.0.0.1, with a folder of its own; ended when dropped.
#[derive(Debug)]
pub struct Nginx {
    child: Child,
    port: u16,
    dir: PathBuf,
}

impl Nginx {
    /// With the configuration that `prepare` gives for its folder and port; the folder is there already.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub fn run(prepare: impl FnOnce(&Path, u16) -> String) -> Self {
        let port = free_port().port();
        let dir = std::env::temp_dir().join(format!("gateward-nginx-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("directories can be made");
        let configuration = prepare(&dir, port);
        std::fs::write(dir.join("nginx.conf"), configuration).expect("files can be written");
        let child = Command::new("nginx")
            .arg("-p")
            .arg(&dir)
            .arg("-c")
            .arg(dir.join("nginx.conf"))
            .args(["-g", "daemon off;"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx runs");
        let nginx = Self { child, port, dir };
        eventually(Duration::from_secs(10), || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        nginx
    }

    /// With a certificate for `name`, asking clients for one of the same authority. It speaks HTTP/1.1.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub fn start(authority: &Authority, name: &str) -> Self {
        Self::serve(authority, name, "ssl")
    }

    /// Likewise; it speaks HTTP/2 with who wants it.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub fn start_http2(authority: &Authority, name: &str) -> Self {
        Self::serve(authority, name, "ssl http2")
    }

    #[track_caller]
    fn serve(authority: &Authority, name: &str, flags: &str) -> Self {
        Self::run(|dir, port| {
            authority.issue(name).write(dir, "server");
            std::fs::write(dir.join("ca.pem"), authority.pem()).expect("files can be written");
            std::fs::write(dir.join("large"), large()).expect("files can be written");
            let shown = dir.display();
            format!(
                "worker_processes 1; pid {shown}/nginx.pid; error_log {shown}/error.log;\n\
             events {{ worker_connections 256; }}\n\
             http {{\n\
               access_log off; default_type text/plain; client_body_temp_path {shown}/body; proxy_temp_path {shown}/proxy;\n\
               fastcgi_temp_path {shown}/f; uwsgi_temp_path {shown}/u; scgi_temp_path {shown}/s;\n\
               server {{\n\
                 listen 127.0.0.1:{port} {flags}; ssl_certificate {shown}/server.crt; ssl_certificate_key {shown}/server.key;\n\
                 ssl_verify_client optional; ssl_client_certificate {shown}/ca.pem; ssl_session_tickets on;\n\
                 location / {{ return 200 \"sni=$ssl_server_name|verify=$ssl_client_verify|subject=$ssl_client_s_dn|host=$http_host|connection=$connection|reused=$ssl_session_reused|proto=$ssl_alpn_protocol|request=$request|length=$http_content_length\"; }}\n\
                 location = /large {{ root {shown}; }}\n\
                 location = /health {{ return 200 \"$server_protocol\"; }}\n\
                 location /close {{ keepalive_timeout 0; return 200 \"reused=$ssl_session_reused|connection=$connection\"; }}\n\
               }}\n\
             }}\n"
            )
        })
    }

    /// Its address as an URL without TLS.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Send it a signal, by name without `SIG`; whether that went well.
    pub fn signal(&self, name: &str) -> bool {
        let kill = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.child.id())]).status();
        kill.is_ok_and(|status| status.success())
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of its files: `ca.pem` has the authority.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// What it serves at `/large`: beyond every window.
pub fn large() -> Vec<u8> {
    (0..3_000_000_u32).map(|index| (index % 251) as u8).collect()
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // An orderly end, so that its workers end too.
        self.signal("TERM");
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
