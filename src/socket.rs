//! Unix sockets that only their owner and group can reach, and whose name nobody else can take.
//!
//! An answer is believed because of where it comes from. So the directory must not be one that anybody may write to,
//! sticky or not, nor another user's: whoever came first, before a start or between two, would be asked in the place of
//! the server. And of two servers that start at once, each of which finds a socket that nobody listens on, the second
//! must not remove what the first has put there meanwhile: a name is taken under a lock on a file beside it, which stays.

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use rustix::process::geteuid;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use tokio::net::{UnixListener, UnixStream};

/// Connections that the kernel may keep until they are taken; as many as the system allows, if that is less.
const BACKLOG: i32 = 1024;
const FOR_OTHERS_TO_WRITE: u32 = 0o002;

/// Listens on a Unix socket with mode 0660. Its directory is made, with mode 0750, if it is not there; one that anybody
/// may write to, or that is another user's and not root's, is refused. Replaces a socket that nobody listens on any more,
/// and nothing else: not a file that is no socket, nor a socket whose listener is only too busy to answer, or not ours to
/// ask, nor one that another process is about to listen on.
pub async fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    prepare(directory.unwrap_or(Path::new(".")))?;
    let _lock = lock(path)?;
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => replace(path).await?,
        Ok(_) => return Err(in_use("a file that is no socket has this name")),
        Err(absent) if absent.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    // Before it listens: until then nobody can connect, whatever the umask has left open.
    fs::set_permissions(path, Permissions::from_mode(0o660))?;
    listen(&socket, BACKLOG)?;
    UnixListener::from_std(socket.into())
}

fn prepare(directory: &Path) -> io::Result<()> {
    match fs::metadata(directory) {
        Ok(found) if found.permissions().mode() & FOR_OTHERS_TO_WRITE != 0 => {
            let why = "anybody may write to its directory, and so put another socket in its place";
            Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
        }
        Ok(found) if ![0, geteuid().as_raw()].contains(&found.uid()) => {
            let why = "its directory is another user's, who may put another socket in its place";
            Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
        }
        Err(absent) if absent.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().mode(0o750).create(directory)?;
            // Whatever the umask has taken away.
            fs::set_permissions(directory, Permissions::from_mode(0o750))
        }
        found => found.map(drop),
    }
}

/// The right to take a name, until it is dropped. The file stays: one that is removed can be locked by two, each under
/// the same name.
fn lock(path: &Path) -> io::Result<OwnedFd> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = open(&beside, flags, Mode::RUSR | Mode::WUSR).map_err(|error| {
        // Not the socket's own: whoever reads it has another file to look at.
        io::Error::new(error.kind(), format!("its lock, {}: {error}", beside.display()))
    })?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(in_use("another process is about to listen on this socket")),
        Err(error) => Err(error.into()),
    }
}

async fn replace(abandoned: &Path) -> io::Result<()> {
    match UnixStream::connect(abandoned).await.map_err(|error| (error.kind(), error)) {
        Ok(_) => Err(in_use("another process listens on this socket")),
        Err((io::ErrorKind::ConnectionRefused, _)) => fs::remove_file(abandoned),
        // What a full backlog says: somebody listens, and is behind.
        Err((io::ErrorKind::WouldBlock, _)) => {
            Err(in_use("another process listens on this socket, and is behind"))
        }
        Err((_, error)) => Err(error),
    }
}

fn in_use(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::AddrInUse, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::socket;
    use std::os::unix::net::UnixStream as BlockingStream;

    async fn refusal(path: &Path) -> Option<io::ErrorKind> {
        listen_unix(path).await.err().map(|error| error.kind())
    }

    #[tokio::test]
    async fn only_a_socket_that_nobody_listens_on_is_replaced() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("socket");
        let first = listen_unix(&path).await.expect("a free name");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(refusal(&path).await, Some(io::ErrorKind::AddrInUse), "somebody listens");
        drop(first);
        assert!(path.exists(), "a listener that is killed leaves its file");
        listen_unix(&path).await.expect("an abandoned name");
    }

    #[tokio::test]
    async fn of_those_who_start_at_once_one_has_the_name() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("socket");
        drop(listen_unix(&path).await.expect("a free name"));
        let starting = lock(&path).expect("nobody else starts");
        let abandoned = fs::symlink_metadata(&path).unwrap().ino();
        assert_eq!(refusal(&path).await, Some(io::ErrorKind::AddrInUse));
        assert_eq!(fs::symlink_metadata(&path).unwrap().ino(), abandoned, "it is left to who was first");
        drop(starting);
        let _listener = listen_unix(&path).await.expect("an abandoned name");
        assert_eq!(mode(&home.path().join("socket.lock")), 0o600);
        // Whoever waits in the lock's place for somebody to follow a link has nobody follow it.
        std::os::unix::fs::symlink(home.path().join("elsewhere"), home.path().join("other.lock")).unwrap();
        let refused = listen_unix(&home.path().join("other")).await.unwrap_err().to_string();
        assert!(refused.contains("other.lock"), "{refused}");
        assert!(!home.path().join("elsewhere").exists());
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file");
        fs::write(&path, "dear").unwrap();
        assert_eq!(refusal(&path).await, Some(io::ErrorKind::AddrInUse));
        assert_eq!(fs::read(&path).unwrap(), b"dear");
        let link = home.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(refusal(&link).await, Some(io::ErrorKind::AddrInUse));
        assert!(link.is_symlink());
        let nowhere = home.path().join("no/such/directory");
        assert_eq!(refusal(&nowhere).await, Some(io::ErrorKind::NotFound));
    }

    #[tokio::test]
    async fn a_listener_that_is_behind_keeps_its_socket() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("socket");
        let busy = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        bind(&busy, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        listen(&busy, 0).unwrap();
        // A backlog of 0 has room for one.
        let _waiting = BlockingStream::connect(&path).unwrap();
        assert_eq!(refusal(&path).await, Some(io::ErrorKind::AddrInUse));
        assert!(path.exists());
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[tokio::test]
    async fn its_directory_is_made_for_its_owner_and_group() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("run");
        let _listener = listen_unix(&directory.join("socket")).await.expect("a new directory");
        assert_eq!(mode(&directory), 0o750);
        assert_eq!(mode(&directory.join("socket")), 0o660);
        // One that was there is left as it was.
        fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
        let _another = listen_unix(&directory.join("another")).await.expect("an old directory");
        assert_eq!(mode(&directory), 0o755);
    }

    #[tokio::test]
    async fn another_user_s_directory_is_refused() {
        let home = tempfile::tempdir().unwrap();
        // Only root can give a directory away, and so play the other user.
        if std::os::unix::fs::chown(home.path(), Some(65_534), None).is_ok() {
            assert_eq!(refusal(&home.path().join("socket")).await, Some(io::ErrorKind::PermissionDenied));
        }
    }

    #[tokio::test]
    async fn a_directory_that_anybody_may_write_to_is_refused() {
        let home = tempfile::tempdir().unwrap();
        for open in [0o777, 0o1777, 0o702] {
            fs::set_permissions(home.path(), Permissions::from_mode(open)).unwrap();
            let path = home.path().join("socket");
            assert_eq!(refusal(&path).await, Some(io::ErrorKind::PermissionDenied), "{open:o}");
            assert!(!path.exists());
        }
    }
}
