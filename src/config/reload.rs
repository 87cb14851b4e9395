//! What a reload may not change. Everything else may: listeners come and go while the proxy runs.

use super::Compiled;

/// What of `new` needs a restart while `old` is in force, one sentence each; empty: the reload may
/// be applied. A reload with any of these is refused as a whole.
#[must_use]
pub fn needs_restart(old: &Compiled, new: &Compiled) -> Vec<String> {
    let mut reasons = Vec::new();
    if old.admin.address != new.admin.address {
        reasons.push(format!(
            "admin.address changes from {} to {}, which needs a restart",
            old.admin.address, new.admin.address
        ));
    }
    if old.rollout.state_dir != new.rollout.state_dir {
        reasons.push(format!(
            "state_dir changes from {} to {}, which needs a restart",
            old.rollout.state_dir.display(),
            new.rollout.state_dir.display()
        ));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn compile(extra: &str) -> Compiled {
        let text = format!("version: 1\nlisteners: [{{ address: 127.0.0.1:0 }}]\n{extra}");
        crate::config::compile_text(&text, Path::new("/etc/haldane.yaml"), &|_| None).unwrap()
    }

    #[test]
    fn only_the_admin_address_and_the_state_dir_need_a_restart() {
        let old = compile("");
        assert_eq!(needs_restart(&old, &compile("drain: 5s")), Vec::<String>::new());
        assert_eq!(
            needs_restart(&old, &compile("admin: { address: 127.0.0.1:9999 }")),
            ["admin.address changes from 127.0.0.1:9900 to 127.0.0.1:9999, which needs a restart"]
        );
        assert_eq!(
            needs_restart(&old, &compile("state_dir: state")),
            ["state_dir changes from /var/lib/haldane to /etc/state, which needs a restart"]
        );
    }
}
