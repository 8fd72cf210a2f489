//! Images on their way: each is sent once per hop, whole, with hardly a byte beside it. The targets
//! are shells of this machine, some of which say that they are another's, of a system of which
//! nobody looks into the images; so what is sent to those runs here all the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mitogen::error::{ConnectError, ConnectFailure, ErrorKind};
use mitogen::{Connecting, Context, Image, Program, Result, Router, Ssh, stock};
use tempfile::TempDir;

use crate::support::*;

/// The other CPU's name for the image, and what its `uname` says.
const OTHER: &str = "linux-pdp11";
const BESIDE_BYTES_MAX: u64 = 1024;

fn own_target() -> String {
    format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH)
}

/// A folder with clients that pose as ssh.
struct Clients(TempDir);

impl Clients {
    fn new() -> Clients {
        Clients(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A client whose target is a shell here.
    fn plain(&self) -> String {
        script(self.0.path(), "plain", "for last do :; done\nexec sh -c \"$last\"")
    }

    /// A client whose target is a shell here, with what comes and goes copied to two files.
    fn counting(&self) -> Counting {
        let (up, down) = (self.path("up"), self.path("down"));
        let copy = format!("tee {} | sh -c \"$last\" | tee {}", up.display(), down.display());
        let text = format!("for last do :; done\n{copy}");
        Counting { up, down, client: script(self.0.path(), "counting", &text) }
    }

    /// A client whose target says that it has another CPU; `before` runs before it says so.
    fn other(&self, before: &str) -> String {
        let bin = self.path("bin");
        fs::create_dir_all(&bin).unwrap();
        script(&bin, "uname", &format!("{before}\necho Darwin arm64"));
        let text = "for last do :; done\nexport PATH={bin}:$PATH\nexec sh -c \"$last\"";
        script(self.0.path(), "other", &text.replace("{bin}", bin.to_str().unwrap()))
    }
}

/// What a client copied.
struct Counting {
    up: PathBuf,
    down: PathBuf,
    client: String,
}

impl Counting {
    fn up(&self) -> u64 {
        bytes_of(&self.up)
    }

    fn down(&self) -> u64 {
        bytes_of(&self.down)
    }

    /// Waits until nothing more comes.
    fn settle(&self, context: &Context) -> (u64, u64) {
        let mut before = (0, 0);
        until(Duration::from_secs(5), || {
            context.call(stock::ping, ()).unwrap();
            std::thread::sleep(Duration::from_millis(20));
            let now = (self.up(), self.down());
            // A ping and its answer.
            let is_quiet = now.0 - before.0 < 40 && now.1 - before.1 < 40;
            before = now;
            is_quiet.then_some(now)
        })
        .unwrap()
    }
}

fn bytes_of(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |about| about.len())
}

fn ssh(router: &Router, client: &str) -> Ssh {
    router.ssh("here").ssh_path(client)
}

#[track_caller]
fn failed(outcome: Result<Context>) -> ConnectError {
    let error = outcome.map(|_| "a context").unwrap_err();
    let ErrorKind::Connect(error) = error.kind() else { panic!("{error}") };
    error.clone()
}

/// The stock image for this CPU, and the same in the place of another's.
fn program(packed: &'static [u8]) -> Program {
    Program::new().image(stock_image()).image(Image::embedded("macos-aarch64", packed))
}

#[test]
fn a_connect_takes_the_image_and_hardly_a_byte_more_both_ways() {
    leaves_nothing(&[], || {
        let (clients, packed) = (Clients::new(), packed_stock_image());
        let counting = clients.counting();
        let image = Image::embedded(&own_target(), packed);
        let router = Program::new().image(image).router().unwrap();
        let connecting: Connecting = ssh(&router, &counting.client).start();
        let (child, cost) = connecting.wait_and_tell().unwrap();
        child.call(stock::ping, ()).unwrap();
        let arrived = || (cost.pushed_bytes <= counting.up()).then(|| counting.up());
        let up = until(Duration::from_secs(5), arrived).unwrap();
        let beside = up + counting.down() - packed.len() as u64;
        assert!(beside < BESIDE_BYTES_MAX, "{beside} bytes beside the image");
        assert!(up - cost.pushed_bytes < 64, "{up} bytes arrived, {} told", cost.pushed_bytes);
    });
}

#[test]
fn another_cpus_image_comes_once_per_hop_from_the_master() {
    leaves_nothing(&[], || {
        let (clients, packed) = (Clients::new(), packed_stock_image());
        let (counting, other) = (clients.counting(), clients.other(""));
        let router = program(packed).router().unwrap();
        let near = ssh(&router, &counting.client).connect().unwrap();
        let hop = router.local().via(&near).connect().unwrap();
        let before = counting.settle(&near).0;

        let far = ssh(&router, &other).via(&hop);
        let (first, cost) = far.clone().start().wait_and_tell().unwrap();
        first.call(stock::ping, ()).unwrap();
        let beside = cost.pushed_bytes - packed.len() as u64;
        assert!(beside < BESIDE_BYTES_MAX, "{beside} bytes beside the image");
        let (after, _) = counting.settle(&near);
        let first_time = after - before;
        let (image, pieces) = (packed.len() as u64, packed.len() as u64 / 16_000 + 1);
        assert!(
            (image..image + BESIDE_BYTES_MAX + pieces * 50).contains(&first_time),
            "{first_time}"
        );

        let many: Vec<_> = (0..5).map(|_| far.clone().start()).collect();
        let many: Vec<_> = many.into_iter().map(|one| one.wait().unwrap()).collect();
        many[4].call(stock::ping, ()).unwrap();
        let near_too = ssh(&router, &other).via(&near).connect().unwrap();
        near_too.call(stock::ping, ()).unwrap();
        let (last, _) = counting.settle(&near);
        assert!(last - after < 6 * BESIDE_BYTES_MAX, "{} bytes more", last - after);
    });
}

#[test]
fn a_hop_keeps_an_image_in_memory_that_is_not_its_heap() {
    leaves_nothing(&[], || {
        let clients = Clients::new();
        let router = program(packed_stock_image()).router().unwrap();
        let hop = router.local().connect().unwrap();
        let _far = ssh(&router, &clients.other("")).via(&hop).connect().unwrap();
        let pid = hop.call(stock::identify, ()).unwrap().pid;
        let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let names = files.filter_map(|file| fs::read_link(file.path()).ok());
        let names: Vec<_> = names.map(|name| name.display().to_string()).collect();
        assert_eq!(names.iter().filter(|name| name.contains("mitogen-image")).count(), 1);
    });
}

#[test]
fn a_cpu_without_an_image_is_told_at_any_depth_with_what_there_is() {
    leaves_nothing(&[], || {
        let clients = Clients::new();
        let other = clients.other("");
        let given = [stock_image(), Image::embedded(OTHER, b"no matter")];
        let router = Program::new().images(given).router().unwrap();
        let hop = router.local().connect().unwrap();
        let deep = router.local().via(&hop).connect().unwrap();
        for ssh in [
            ssh(&router, &other),
            ssh(&router, &other).via(&hop),
            ssh(&router, &other).via(&deep),
            ssh(&router, &other).via(&deep),
        ] {
            let error = failed(ssh.connect());
            let ConnectFailure::NoImage { target, available } = &error.failure else {
                panic!("{error}")
            };
            assert_eq!(target, "macos-aarch64");
            assert_eq!(*available, format!("{} {OTHER}", own_target()));
            assert!(error.to_string().contains("ssh:here"), "{error}");
        }
        deep.call(stock::ping, ()).unwrap();
    });
}

#[test]
fn the_time_of_a_connect_includes_the_wait_for_its_image() {
    leaves_nothing(&[], || {
        let clients = Clients::new();
        let (asked, go) = (clients.path("asked"), clients.path("go"));
        let wait =
            format!(":>{}\nwhile ! [ -e {} ];do sleep 0.01;done", asked.display(), go.display());
        let router = program(packed_stock_image()).router().unwrap();
        let hop = router.local().connect().unwrap();
        let deep = router.local().via(&hop).connect().unwrap();
        let pid = hop.call(stock::identify, ()).unwrap().pid;
        let ssh = ssh(&router, &clients.other(&wait)).via(&deep);
        let begun = Instant::now();
        let connecting = ssh.connect_timeout(Duration::from_secs(1)).start();
        until(Duration::from_secs(1), || asked.exists().then_some(())).unwrap();
        // Whom `deep` asks for the image does not answer.
        signal(pid, "STOP");
        fs::write(&go, "").unwrap();
        let error = failed(connecting.wait());
        signal(pid, "CONT");
        assert_eq!(error.failure, ConnectFailure::Timeout);
        assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
        deep.call(stock::ping, ()).unwrap();
    });
}

#[test]
fn a_directory_of_images_serves_this_machine_and_others() {
    leaves_nothing(&[], || {
        let (clients, folder) = (Clients::new(), tempfile::tempdir().unwrap());
        fs::write(folder.path().join(own_target()), stock_image_bytes()).unwrap();
        fs::write(folder.path().join("Darwin-arm64.gz"), packed_stock_image()).unwrap();
        fs::write(folder.path().join("README"), "not an image").unwrap();
        let images = Image::directory(folder.path()).unwrap();
        let router = Program::new().images(images).router().unwrap();
        let local = router.local().connect().unwrap();
        let other = ssh(&router, &clients.other("")).via(&local).connect().unwrap();
        other.call(stock::ping, ()).unwrap();
    });
}

/// What a context says of itself that a wrapper changes.
fn niceness(context: &Context) -> i32 {
    niceness_of(context.call(stock::identify, ()).unwrap().pid) - niceness_of(std::process::id())
}

fn niceness_of(pid: u32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let behind_the_name = stat.rsplit(") ").next().unwrap();
    behind_the_name.split(' ').nth(16).unwrap().parse().unwrap()
}

fn environment(context: &Context) -> String {
    let pid = context.call(stock::identify, ()).unwrap().pid;
    String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/environ")).unwrap()).into_owned()
}

#[test]
fn a_wrapper_executes_the_agent_with_and_without_a_shell() {
    leaves_nothing(&[], || {
        let clients = Clients::new();
        let client = clients.plain();
        let router = program(packed_stock_image()).router().unwrap();
        let words = ["env", "MITOGEN_WRAPPED=it's $HOME", "nice", "-n", "5"];
        let local = router.local().wrapper(words).connect().unwrap();
        let behind = router.local().via(&local).wrapper(words).connect().unwrap();
        let shell = ssh(&router, &client).wrapper(words).connect().unwrap();
        for (context, nice) in [(&local, 5), (&behind, 10), (&shell, 5)] {
            assert_eq!(niceness(context), nice);
            assert!(environment(context).contains("MITOGEN_WRAPPED=it's $HOME\0"));
        }
        let address = "local/local?wrapper=nice -n 3".parse().unwrap();
        assert_eq!(niceness(&router.connect(&address).unwrap()), 3);
    });
}

#[test]
fn a_wrapper_that_is_not_there_is_told() {
    leaves_nothing(&[], || {
        let clients = Clients::new();
        let router = program(packed_stock_image()).router().unwrap();
        let error = failed(router.local().wrapper(["/no/such/wrapper"]).connect());
        const ENOENT: i32 = 2;
        assert_eq!(error.failure, ConnectFailure::Spawn(ENOENT), "{error}");
        let client = clients.plain();
        let error = failed(ssh(&router, &client).wrapper(["/no/such/wrapper"]).connect());
        assert_eq!(error.failure, ConnectFailure::ImageDoesNotRun, "{error}");
        assert!(error.tail.contains("/no/such/wrapper"), "{error}");
        for wrapper in [&["-n"][..], &[""], &["a\nb"], &["w"; 400]] {
            let error = failed(router.local().wrapper(wrapper.iter().copied()).connect());
            let ConnectFailure::BadOption(why) = &error.failure else { panic!("{error}") };
            assert!(why.contains("wrapper"), "{error}");
        }
    });
}
