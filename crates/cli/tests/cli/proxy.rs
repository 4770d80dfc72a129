//! The way through an HTTP proxy: of the context, of the environment, and every way it can be closed.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::fake::ADMIN;
use crate::harness::{Home, check, two_deployments};

/// A proxy that lets in who knows the password, and leads everybody to one target.
struct Proxy {
    address: SocketAddr,
    /// The first line of each request.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn start(target: SocketAddr, answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let heard = Arc::clone(&heard);
                let stream = stream.unwrap();
                std::thread::spawn(move || serve(stream, target, answer, &heard));
            }
        });
        Self { address, asked }
    }

    fn n_asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

/// One connection; ends when either side does.
fn serve(stream: TcpStream, target: SocketAddr, answer: &str, asked: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    asked
        .lock()
        .unwrap()
        .push(lines.first().cloned().unwrap_or_default());
    // `ada:geheim`, the only user.
    let known = lines
        .iter()
        .any(|line| line == "Proxy-Authorization: Basic YWRhOmdlaGVpbQ==");
    let wants = answer.starts_with("HTTP/1.1 407") && !known;
    let mut stream = stream;
    if wants || !answer.contains("40") && !answer.contains("200") || answer.contains("403") {
        let _ = stream.write_all(answer.as_bytes());
        return;
    }
    let _ = stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n");
    let mut to = TcpStream::connect(target).unwrap();
    let (mut from_target, mut to_client) = (to.try_clone().unwrap(), stream);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_target, &mut to_client);
        let _ = to_client.shutdown(std::net::Shutdown::Both);
    });
    let _ = std::io::copy(&mut reader, &mut to);
    let _ = to.shutdown(std::net::Shutdown::Both);
}

const OPEN: &str = "HTTP/1.1 200 OK\r\n\r\n";
const LOCKED: &str = "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n";
const CLOSED: &str = "HTTP/1.1 403 Forbidden\r\n\r\n<html>no</html>";

fn add(home: &Home, name: &str, endpoint: &str, rest: &[&str]) -> String {
    let base = ["context", "add", name, "--endpoint", endpoint];
    let ca = ["--ca", "ca.pem", "--token-stdin"];
    home.run_with(&[&base[..], &ca[..], rest].concat(), ADMIN)
}

#[test]
fn a_context_may_name_a_proxy() {
    let home = Home::without_context(two_deployments());
    let open = Proxy::start(home.fake.address, OPEN);
    let locked = Proxy::start(home.fake.address, LOCKED);
    let closed = Proxy::start(home.fake.address, CLOSED);
    let away = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = |address: SocketAddr| format!("http://{address}");
    home.write("secret", &format!("http://ada:geheim@{}\n", locked.address));
    home.write("wrong", &format!("http://ada:geheim2@{}\n", locked.address));
    let endpoint = home.endpoint();
    let mut text = vec![
        add(&home, "open", &endpoint, &["--proxy", &url(open.address)]),
        add(
            &home,
            "nouser",
            &endpoint,
            &["--proxy", &url(locked.address)],
        ),
        add(&home, "user", &endpoint, &["--proxy-file", "secret"]),
        add(&home, "wrong", &endpoint, &["--proxy-file", "wrong"]),
        add(
            &home,
            "closed",
            &endpoint,
            &["--proxy", &url(closed.address)],
        ),
        add(&home, "away", &endpoint, &["--proxy", &url(away)]),
        add(
            &home,
            "bad",
            &endpoint,
            &["--proxy", "http://ada:geheim@p:1"],
        ),
        add(&home, "bad", &endpoint, &["--proxy", "https://p:1"]),
        home.run(&["context", "list", "-o", "wide"]),
        home.run(&["context", "show", "user", "-o", "json"]),
    ];
    for name in ["open", "user", "nouser", "wrong", "closed", "away"] {
        text.push(home.run(&["get", "deployments", "--context", name]));
    }
    let text = text.join("\n");
    assert!(!text.contains("geheim"), "{text}");
    let shown = [
        (open.address, "OPEN"),
        (locked.address, "LOCKED"),
        (closed.address, "CLOSED"),
        (away, "AWAY"),
    ]
    .iter()
    .fold(text, |text, (address, name)| {
        text.replace(
            &format!("127.0.0.1:{}", address.port()),
            &format!("proxy:{name}"),
        )
    })
    .replace(
        &format!("localhost:{}", home.fake.address.port()),
        "localhost:PORT",
    );
    check("proxy_context", &shown);
    let port = home.fake.address.port();
    assert_eq!(
        open.asked.lock().unwrap()[..],
        [format!("CONNECT localhost:{port} HTTP/1.1")]
    );
}

#[test]
fn the_environment_names_a_proxy_where_the_context_does_not() {
    let home = Home::new(two_deployments());
    let proxy = Proxy::start(home.fake.address, LOCKED);
    add(&home, "far", "https://control.test:8443", &[]);
    let status = |context: &str, variables: &[(&str, &str)]| {
        let mut command = home.command(&["get", "deployments", "--context", context]);
        command.envs(variables.iter().copied());
        let output = command.output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), err)
    };
    let right = format!("http://ada:geheim@{}", proxy.address);
    // Through the proxy a server answers whose certificate is for another name: the way is open, and TLS ends it.
    let (code, err) = status("far", &[("HTTPS_PROXY", &right)]);
    assert_eq!(code, 3, "{err}");
    assert!(
        err.contains(
            "the server at https://control.test:8443 through the proxy at http://127.0.0.1:"
        ),
        "{err}"
    );
    assert_eq!(
        proxy.asked.lock().unwrap()[..],
        ["CONNECT control.test:8443 HTTP/1.1"]
    );
    // This machine itself is never behind a proxy.
    let (code, err) = status("prod", &[("HTTPS_PROXY", &right)]);
    assert_eq!((code, proxy.n_asked()), (0, 1), "{err}");
    let (code, err) = status("far", &[("https_proxy", &right), ("NO_PROXY", ".test")]);
    assert_eq!((code, proxy.n_asked()), (3, 1), "{err}");
    let without = format!("http://{}", proxy.address);
    let (code, err) = status("far", &[("ALL_PROXY", &without)]);
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("wants a user and a password (407)"), "{err}");
    assert!(err.contains("hint: set ALL_PROXY to http://USER"), "{err}");
    let (code, err) = status("far", &[("HTTPS_PROXY", "socks5://geheim:1")]);
    assert_eq!(code, 1, "{err}");
    assert!(
        err.contains("the proxy of HTTPS_PROXY must begin with http://") && !err.contains("geheim"),
        "{err}"
    );
}
