//! A way to a member that can be cut.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::server::listener;

/// Passes connections on to a member.
pub struct Proxy {
    port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    is_cut: AtomicBool,
    /// Whether connections are refused by now.
    is_closed: AtomicBool,
    swallows_answers: AtomicBool,
    connections: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    pub fn to(endpoint: String) -> Proxy {
        let listener = listener();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        listener.set_nonblocking(true).unwrap();
        std::thread::spawn(move || {
            let mut listener = Some(listener);
            loop {
                std::thread::sleep(Duration::from_millis(2));
                if shared.is_cut.load(Ordering::SeqCst) {
                    // Without a listener, connections are refused.
                    listener = None;
                    shared.is_closed.store(true, Ordering::SeqCst);
                    continue;
                }
                if listener.is_none() {
                    // The system gives this port to no other process by chance: see `server::listener`.
                    let Ok(again) = TcpListener::bind(("127.0.0.1", port)) else { continue };
                    again.set_nonblocking(true).unwrap();
                    listener = Some(again);
                }
                let Some(listener) = &listener else { continue };
                let Ok((client, _)) = listener.accept() else { continue };
                client.set_nonblocking(false).unwrap();
                let Ok(server) = TcpStream::connect(&endpoint) else { continue };
                let mut connections = shared.connections.lock().unwrap();
                connections.extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
                drop(connections);
                let (client_2, server_2) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || pass_on(client, server, || false));
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || {
                    pass_on(server_2, client_2, || shared.swallows_answers.load(Ordering::SeqCst))
                });
            }
        });
        Proxy { port, state }
    }

    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Closes all connections and refuses new ones.
    pub fn cut(&self) {
        self.state.is_closed.store(false, Ordering::SeqCst);
        self.state.is_cut.store(true, Ordering::SeqCst);
        while !self.state.is_closed.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        for connection in self.state.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Lets requests through, and no answers.
    pub fn swallow_answers(&self) {
        self.state.swallows_answers.store(true, Ordering::SeqCst);
    }

    /// Ends what the other two have begun.
    pub fn mend(&self) {
        if self.state.swallows_answers.swap(false, Ordering::SeqCst) {
            // What was swallowed is missing.
            self.cut();
        }
        self.state.is_cut.store(false, Ordering::SeqCst);
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, swallow: impl Fn() -> bool) {
    let mut bytes = [0; 16 << 10];
    while let Ok(len) = from.read(&mut bytes) {
        if len == 0 || !swallow() && to.write_all(&bytes[..len]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
