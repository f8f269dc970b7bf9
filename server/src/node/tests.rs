//! What a relay whose parts fail says of itself.

use std::net::Ipv4Addr;

use sds_sync::access::Secret;
use sds_sync::transport::FrameRoom;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::log_writer::Append;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

async fn relay(folder: &TempDir) -> Relay {
    let secret = Secret::new("a secret of more than thirty-two characters").unwrap();
    let admin = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let config = RelayConfig { admin, ..RelayConfig::new(secret, folder.path()) };
    Relay::start(config).await.unwrap()
}

/// Asks the admin listener for `path`; the first line of what it says.
async fn ask(relay: &Relay, path: &str) -> String {
    let mut stream = TcpStream::connect(relay.admin_addr().unwrap()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

/// Goal: a container whose relay takes nothing any more is found to be unhealthy. Method: the thread
/// that writes the file ends before it should.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_nobody_writes_for_is_not_alive() {
    let folder = TempDir::new().unwrap();
    let relay = relay(&folder).await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(ask(&relay, path).await, "HTTP/1.1 200 OK", "{path}");
    }
    relay.node.writer.stop();
    let ended = async {
        while relay.is_alive() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, ended).await.unwrap();
    for path in ["/healthz", "/readyz"] {
        assert_eq!(ask(&relay, path).await, "HTTP/1.1 503 Service Unavailable", "{path}");
    }
    relay.stop().await;
}

/// Goal: a disk that hangs does not keep a relay from its end, which acknowledges nothing that is not
/// written. Method: a transaction that goes on when the test says so, before one of a client's.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_a_disk_that_hangs_only_so_long() {
    let folder = TempDir::new().unwrap();
    let relay = relay(&folder).await;
    let log = Arc::clone(relay.log());
    let (go_on, hangs) = std::sync::mpsc::channel::<()>();
    let (begun, begins) = std::sync::mpsc::channel();
    let hanging = std::thread::spawn(move || {
        log.write(|_| {
            begun.send(()).unwrap();
            // Until the test has nothing to say any more.
            let _closed = hangs.recv();
            Ok(())
        })
    });
    begins.recv().unwrap();
    let store = StoreId::new("s").unwrap();
    let mut reply = relay.node.writer.append(Append {
        store,
        author: Arc::default(),
        changes: Vec::new(),
        skips_lacking: false,
        _room: FrameRoom::default(),
    });
    let begun = Instant::now();
    assert_eq!(timeout(PATIENCE, relay.stop()).await.unwrap(), Ending::DiskHangs);
    assert!(begun.elapsed() >= LAST_WRITES_TIME, "{:?}", begun.elapsed());
    assert!(reply.try_recv().is_err(), "nothing is written");
    drop(go_on);
    hanging.join().unwrap().unwrap();
    assert!(reply.await.unwrap().is_ok(), "the disk answers again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_on_a_disk_that_works_is_in_good_order() {
    let folder = TempDir::new().unwrap();
    let begun = Instant::now();
    assert_eq!(relay(&folder).await.stop().await, Ending::InGoodOrder);
    assert!(begun.elapsed() < LAST_WRITES_TIME, "{:?}", begun.elapsed());
}
