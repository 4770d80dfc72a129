//! A real server: started, written to, restarted with its data, ended.

use rustix::process::{Pid, test_kill_process};
use xtask::bao::Bao;
use xtask::registry::Dir;
use xtask::{binaries, registry};

#[test]
fn starts_keeps_data_over_a_restart_and_ends() {
    let dir = Dir::new_in(&binaries::target_dir().unwrap().join("run"), "bao-test-").unwrap();
    let mut bao = Bao::start(dir.path()).unwrap();
    assert_eq!(bao.kv_put("openai/team-a", "api_key", "first").unwrap(), 1);
    assert_eq!(bao.kv_put("openai/team-a", "api_key", "second").unwrap(), 2);
    bao.policy("reader", r#"path "secret/*" { capabilities = ["read"] }"#)
        .unwrap();
    assert!(!bao.token("reader", "1h").unwrap().is_empty());
    let role = bao.approle("control", "reader", "20s", "1m").unwrap();
    assert!(!role.role_id.is_empty() && !role.secret_id.is_empty());

    let address = bao.address();
    bao.restart().unwrap();
    assert_eq!(bao.address(), address);
    let read = bao.cli(&[
        "kv",
        "get",
        "-mount=secret",
        "-field=api_key",
        "openai/team-a",
    ]);
    assert_eq!(read.is_ok_and(|value| value == "second"), bao.is_lasting());

    let pid = Pid::from_raw(bao.process().pid().unwrap().try_into().unwrap()).unwrap();
    drop(bao);
    assert!(test_kill_process(pid).is_err(), "the server is gone");
    assert_eq!(registry::n_groups(), 0);
}
