//! A real cluster on loopback: `etcd` of the package `etcd-server`, with its data in a temporary directory.

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use caskfile::Config;
use caskfile_etcd::{EtcdConfig, EtcdStore};
use etcd_client::Client;
use tokio::runtime::Runtime;

/// How long something may take that must happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Some members, which are killed when this is dropped.
pub struct Cluster {
    directory: PathBuf,
    members: Vec<Member>,
    more: Vec<String>,
    token: Mutex<String>,
}

struct Member {
    client: u16,
    peer: u16,
    process: Mutex<Option<Child>>,
}

impl Cluster {
    /// Starts this many members and waits until they answer. These arguments are added to those of each member.
    pub fn start(members: usize, more: &[&str]) -> Cluster {
        for _ in 0..5 {
            let cluster = Cluster::begin(members, more);
            match cluster.answers() {
                Ok(()) => return cluster,
                // Perhaps another process has taken one of its ports in between.
                Err(why) => eprintln!("{why}; it is started again with other ports"),
            }
        }
        panic!("no cluster of {members} members can be started");
    }

    fn begin(members: usize, more: &[&str]) -> Cluster {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // A sync that waits for a disk only makes the tests slow.
        let shared_memory = Path::new("/dev/shm");
        let parent = if free(shared_memory) > 2 << 30 { shared_memory.to_owned() } else { std::env::temp_dir() };
        remove_leftovers(&parent);
        let directory = parent.join(format!("caskfile-etcd-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let cluster = Cluster {
            members: ports(2 * members)
                .chunks(2)
                .map(|ports| Member { client: ports[0], peer: ports[1], process: Mutex::new(None) })
                .collect(),
            token: Mutex::new(format!("{}-{number}", std::process::id())),
            more: more.iter().map(|word| word.to_string()).collect(),
            directory,
        };
        (0..members).for_each(|member| cluster.start_member(member));
        cluster
    }

    /// Waits until the cluster has a leader and answers.
    pub fn await_answers(&self) {
        self.answers().unwrap_or_else(|why| panic!("{why}"));
    }

    /// As `await_answers`. Says which member has exited by itself, if one has.
    fn answers(&self) -> Result<(), String> {
        let began = Instant::now();
        loop {
            let opened = self.config().open(&Config::new().connection_timeout(Duration::from_secs(2)));
            for (at, member) in self.members.iter().enumerate() {
                let exited = member.process.lock().unwrap().as_mut().and_then(|process| process.try_wait().unwrap());
                if let Some(status) = exited {
                    let log = std::fs::read_to_string(self.directory.join(format!("{at}.log"))).unwrap_or_default();
                    let last = log.lines().last().unwrap_or_default();
                    return Err(format!("member {at} has exited with {status}: {last}"));
                }
            }
            match opened {
                Ok(_) => return Ok(()),
                Err(error) => assert!(began.elapsed() < PATIENCE, "the cluster does not answer: {error:#}"),
            }
        }
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn endpoint(&self, member: usize) -> String {
        format!("127.0.0.1:{}", self.members[member].client)
    }

    pub fn endpoints(&self) -> Vec<String> {
        (0..self.members.len()).map(|member| self.endpoint(member)).collect()
    }

    pub fn config(&self) -> EtcdConfig {
        EtcdConfig::new(self.endpoints())
    }

    /// A store with a root of its own.
    pub fn store(&self, root: &str) -> EtcdStore {
        self.config().root(root).open(&Config::new()).unwrap()
    }

    /// Starts a member, for the first time or after it was killed.
    pub fn start_member(&self, member: usize) {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let Member { client, peer, process } = &self.members[member];
        let all: Vec<String> =
            self.members.iter().enumerate().map(|(at, other)| format!("m{at}={}", url(other.peer))).collect();
        let log = std::fs::File::options().create(true).append(true).open(self.directory.join(format!("{member}.log")));
        let log = log.unwrap();
        let mut command = Command::new("etcd");
        command
            .args(["--name", &format!("m{member}"), "--data-dir"])
            .arg(self.directory.join(member.to_string()))
            .args(["--listen-client-urls", &url(*client), "--advertise-client-urls", &url(*client)])
            .args(["--listen-peer-urls", &url(*peer), "--initial-advertise-peer-urls", &url(*peer)])
            .args(["--initial-cluster", &all.join(","), "--initial-cluster-token", &self.token.lock().unwrap()])
            .args(&self.more)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        *process.lock().unwrap() = Some(spawn(command));
    }

    /// Kills the members and removes their data.
    fn end(&self) {
        (0..self.len()).for_each(|member| self.kill(member));
        let _ = std::fs::remove_dir_all(&self.directory);
    }

    pub fn kill(&self, member: usize) {
        if let Some(mut process) = self.members[member].process.lock().unwrap().take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Stops a member in the middle of what it does, until [`Cluster::go_on`].
    pub fn stop(&self, member: usize) {
        self.signal(member, libc::SIGSTOP);
    }

    pub fn go_on(&self, member: usize) {
        self.signal(member, libc::SIGCONT);
    }

    fn signal(&self, member: usize, signal: i32) {
        if let Some(process) = &*self.members[member].process.lock().unwrap() {
            // SAFETY: the child was not waited for, so the id is its own.
            let sent = unsafe { libc::kill(process.id() as i32, signal) };
            assert_eq!(sent, 0);
        }
    }

    /// Makes the cluster again, without its data, at the same addresses. With a new token it has another id.
    pub fn begin_again(&self, other_id: bool) {
        (0..self.len()).for_each(|member| self.kill(member));
        for member in 0..self.len() {
            std::fs::remove_dir_all(self.directory.join(member.to_string())).unwrap();
        }
        if other_id {
            self.token.lock().unwrap().push_str("-again");
        }
        (0..self.len()).for_each(|member| self.start_member(member));
        self.await_answers();
    }

    /// The member that leads.
    pub fn leader(&self) -> usize {
        let began = Instant::now();
        loop {
            for member in 0..self.len() {
                let status = block_on(async {
                    let asked = async {
                        let mut client = Client::connect([self.endpoint(member)], None).await?;
                        client.status().await
                    };
                    tokio::time::timeout(Duration::from_secs(1), asked).await
                });
                if let Ok(Ok(status)) = status
                    && status.leader() == status.header().unwrap().member_id()
                {
                    return member;
                }
            }
            assert!(began.elapsed() < PATIENCE, "no member leads");
        }
    }

    /// Forgets the history up to now.
    pub fn compact(&self) {
        block_on(async {
            let mut client = Client::connect(self.endpoints(), None).await.unwrap();
            let revision = client.get("compact", None).await.unwrap().header().unwrap().revision();
            // It is refused if nothing was written since the last one.
            let _ = client.compact(revision, None).await;
        });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (0..self.len()).for_each(|member| self.kill(member));
            eprintln!("the servers' logs are in {}", self.directory.display());
        } else {
            self.end();
        }
    }
}

/// Removes what killed runs have left: a member takes 64 MiB at once.
fn remove_leftovers(parent: &Path) {
    for entry in std::fs::read_dir(parent).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        let owner = name.strip_prefix("caskfile-etcd-").and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|owner| owner.parse::<u32>().is_ok() && !Path::new("/proc").join(owner).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Runs what only the client's library can do, such as turning authentication on.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().unwrap()).block_on(future)
}

/// The cluster of three members that most tests share, each with a root of its own. Its members die with this process.
pub fn shared() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    extern "C" fn end() {
        if let Some(cluster) = SHARED.get() {
            cluster.end();
        }
    }
    // Patient, so that a busy machine does not make the members elect a leader during a test.
    SHARED.get_or_init(|| {
        // What is static is not dropped.
        // SAFETY: the function is there until the process ends.
        unsafe { libc::atexit(end) };
        Cluster::start(3, &["--heartbeat-interval", "150", "--election-timeout", "1500"])
    })
}

/// A listener at a port that the system gives only to programs that ask for its number, so it is free again after it was closed.
pub fn listener() -> TcpListener {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // Each process begins elsewhere.
    let first = u64::from(std::process::id()) * 64;
    let port = || 10_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
    (0..20_000)
        .find_map(|_| TcpListener::bind(("127.0.0.1", port() as u16)).ok())
        .expect("one of 20,000 ports must be free")
}

/// The bytes that are free where this is.
fn free(directory: &Path) -> u64 {
    let path = std::ffi::CString::new(directory.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: a structure of numbers, which the system fills; the path ends with a zero byte.
    let (done, found) = unsafe {
        let mut found: libc::statvfs = std::mem::zeroed();
        (libc::statvfs(path.as_ptr(), &mut found), found)
    };
    if done == 0 { found.f_bavail * found.f_frsize } else { 0 }
}

fn ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..count).map(|_| listener()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

/// Starts a process that dies with this one. The system ties it to the thread that starts it, so that is one which never ends.
fn spawn(command: Command) -> Child {
    type Job = (Command, mpsc::Sender<Child>);
    static KEEPER: OnceLock<Mutex<mpsc::Sender<Job>>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, done) in jobs {
                // SAFETY: prctl is a system call alone.
                unsafe {
                    command.pre_exec(|| {
                        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                        Ok(())
                    })
                };
                done.send(command.spawn().expect("etcd must be installed: apt-get install etcd-server")).unwrap();
            }
        });
        Mutex::new(sender)
    });
    let (sender, child) = mpsc::channel();
    keeper.lock().unwrap().send((command, sender)).unwrap();
    child.recv().unwrap()
}

/// Lets other threads end, after a panic too.
pub struct OnDrop<F: Fn()>(pub F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
