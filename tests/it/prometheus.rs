//! A real Prometheus scrapes the daemon.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::harness::{DEADLINE, Daemon, until};

/// A Prometheus of this test, with its own directory and port. Dropped, it is ended.
struct Prometheus {
    child: Child,
    address: String,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Prometheus {
    /// One that scrapes this address four times a second.
    fn scraping(target: &str, dir: &Path) -> Self {
        let config = dir.join("prometheus.yml");
        let job = format!("- job_name: procman\n  static_configs:\n  - targets: ['{target}']\n");
        fs::write(&config, format!("global: {{scrape_interval: 250ms, scrape_timeout: 250ms}}\nscrape_configs:\n{job}")).unwrap();
        // It cannot be told to take a free port and say which; one that was free a moment ago is as near as one gets.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let log = fs::File::create(dir.join("prometheus.log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("tsdb").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus is on the path: `make test` sees to that");
        Self { child, address }
    }

    /// The series that an expression gives now; `None` as long as it does not answer.
    fn query(&self, expression: &str) -> Option<Vec<Value>> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).ok()?;
        write!(stream, "GET /api/v1/query?query={expression} HTTP/1.0\r\nHost: test\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let body: Value = serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()?;
        body["data"]["result"].as_array().cloned()
    }

    /// Waits until an expression has exactly one series, of this value.
    #[track_caller]
    fn wait_for(&self, expression: &str, value: &str) {
        let mut last = None;
        until(format_args!("{expression} is {value} in Prometheus"), || {
            last = self.query(expression);
            let [series] = last.as_deref()? else { return None };
            (series["value"][1] == value).then_some(())
        });
    }
}

#[test]
fn prometheus_sees_what_happens() {
    let daemon = Daemon::start("[[process]]\nname = \"nap\"\ngroup = \"lab\"\ncmd = [\"sleep\", \"1000\"]\nautostart = true\n");
    let target = daemon.info().metrics_endpoint.unwrap();
    let target = target.strip_prefix("http://").unwrap().strip_suffix("/metrics").unwrap().to_owned();
    let prometheus = Prometheus::scraping(&target, daemon.dir());

    prometheus.wait_for("up", "1");
    prometheus.wait_for("procman_process_up{name=\"nap\",group=\"lab\"}", "1");
    prometheus.wait_for("procman_process_state{name=\"nap\",state=\"running\"}", "1");
    prometheus.wait_for("psutil_pid", &daemon.pid().to_string());
    prometheus.wait_for("procman_process_tree_processes", "1");

    daemon.quit("nap");
    prometheus.wait_for("procman_process_up", "0");
    prometheus.wait_for("procman_process_exits_total{cause=\"quit\"}", "1");
    prometheus.wait_for("procman_process_last_returncode", "-15");

    daemon.call::<Value>("unregister", serde_json::json!({"name": "nap"}));
    until("the series of what is not registered any more are gone", || prometheus.query("procman_process_up").filter(Vec::is_empty));
    prometheus.wait_for("up", "1");
    drop(prometheus);
    daemon.stop();
}

#[test]
fn promtool_has_nothing_to_say() {
    let daemon = Daemon::start(
        "[[process]]\nname = \"nap\"\ncmd = [\"sleep\", \"1000\"]\nautostart = true\n[[process]]\nname = \"broken\"\ncmd = [\"/no/such/program\"]\nautostart = true\n",
    );
    until("the first refresh", || daemon.metric("procman_process_resident_memory_bytes", &["nap"]));
    let page = daemon.http("/metrics");
    let (head, body) = page.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/plain; version=0.0.4"), "{head}");
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is on the path: `make test` sees to that");
    promtool.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
    assert!(daemon.http("/healthz").starts_with("HTTP/1.1 200") && daemon.http("/readyz").starts_with("HTTP/1.1 200"));
    daemon.stop();
}
