//! The private CA's commands, to the letter.

use std::{ffi::OsString, fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, Result, ensure};
use e2e::{Lab, Role};

fn pki(lab: &Lab, line: &str) -> Result<e2e::process::Finished> {
    // `@` stands for the lab's directory.
    let place = lab.path("").to_string_lossy().into_owned();
    lab.pki(
        line.split_whitespace()
            .map(|word| OsString::from(word.replace('@', &place))),
    )
}

fn mode(path: &Path) -> Result<u32> {
    Ok(fs::metadata(path)
        .with_context(|| path.display().to_string())?
        .permissions()
        .mode()
        & 0o7777)
}

#[test]
fn init_and_issue_write_what_they_promise_and_never_overwrite() -> Result<()> {
    Lab::run(|lab| {
        pki(lab, "init --dir @ca --trust-domain watch.test")?.expect_code(0)?;
        for file in ["ca/ca.pem", "ca/ca.key", "ca/crl.pem"] {
            ensure!(lab.path(file).is_file(), "{file} is missing");
        }
        ensure!(mode(&lab.path("ca/ca.key"))? == 0o600, "ca.key is not 0600");
        ensure!(
            mode(&lab.path("ca"))? == 0o700,
            "the CA's directory is not 0700"
        );
        let key = fs::read(lab.path("ca/ca.key"))?;
        ensure!(
            pki(lab, "init --dir @ca --trust-domain watch.test")?.code() != 0,
            "init overwrites"
        );
        ensure!(
            fs::read(lab.path("ca/ca.key"))? == key,
            "init has overwritten"
        );

        let issue = "issue --dir @ca --role forwarder --agency moh --name host-01 --dns host-01.example --ip 192.0.2.7 \
                     --days 30 --out @certs";
        pki(lab, issue)?.expect_code(0)?;
        for file in ["certs/host-01.pem", "certs/host-01.key", "certs/ca.pem"] {
            ensure!(lab.path(file).is_file(), "{file} is missing");
        }
        ensure!(
            mode(&lab.path("certs/host-01.key"))? == 0o600,
            "host-01.key is not 0600"
        );
        ensure!(
            fs::read(lab.path("certs/ca.pem"))? == fs::read(lab.path("ca/ca.pem"))?,
            "ca.pem is another"
        );
        ensure!(pki(lab, issue)?.code() != 0, "issue overwrites");

        let list = pki(lab, "list --dir @ca")?.expect_code(0)?;
        ensure!(
            list.stdout.contains("host-01") && list.stdout.contains("moh"),
            "{}",
            list.stdout
        );
        Ok(())
    })
}

#[test]
fn wrong_names_roles_and_agencies_are_wrong_usage() -> Result<()> {
    Lab::run(|lab| {
        for line in [
            "issue --dir @pki --role forwarder --name host-01 --out @x",
            "issue --dir @pki --role center --agency moh --name c --out @x",
            "issue --dir @pki --role king --agency moh --name c --out @x",
            "issue --dir @pki --role forwarder --agency moh --name ../etc --out @x",
            "issue --dir @pki --role forwarder --agency moh --name a..b --out @x",
            "issue --dir @pki --role forwarder --agency m/oh --name a --out @x",
            "init --dir @y",
        ] {
            pki(lab, line)?
                .expect_code(2)
                .with_context(|| line.to_owned())?;
        }
        ensure!(!lab.path("x/host-01.key").exists());
        Ok(())
    })
}

#[test]
fn revoke_renews_the_list_and_an_ambiguous_name_is_answered_with_the_candidates() -> Result<()> {
    Lab::run(|lab| {
        for (role, out) in [
            (Role::Forwarder("moh"), "a"),
            (Role::Forwarder("mof"), "b"),
            (Role::Collector("moh"), "c"),
        ] {
            lab.issue("pki", role, "twin", &lab.path(out))?;
        }
        let list = fs::read(lab.path("pki/crl.pem"))?;
        let ambiguous = pki(lab, "revoke --dir @pki --name twin")?.expect_code(2)?;
        ensure!(
            ambiguous.stderr.contains("mof") && ambiguous.stderr.contains("collector"),
            "{}",
            ambiguous.stderr
        );
        ensure!(
            fs::read(lab.path("pki/crl.pem"))? == list,
            "an ambiguous name revoked something"
        );
        pki(
            lab,
            "revoke --dir @pki --name twin --agency moh --role forwarder",
        )?
        .expect_code(0)?;
        let after = fs::read(lab.path("pki/crl.pem"))?;
        ensure!(after != list, "the list is unchanged");
        let listed = pki(lab, "list --dir @pki")?.expect_code(0)?.stdout;
        ensure!(listed.to_lowercase().contains("revoked"), "{listed}");
        pki(lab, "crl --dir @pki")?.expect_code(0)?;
        ensure!(
            fs::read(lab.path("pki/crl.pem"))? != after,
            "the list was not signed again"
        );
        ensure!(pki(lab, "revoke --dir @pki --name nobody")?.code() != 0);
        Ok(())
    })
}
