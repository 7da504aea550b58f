//! A private certificate authority for those who have none.
//!
//! A folder is all there is of it:
//!
//! | file | what |
//! |---|---|
//! | `ca.pem` | its certificate: ECDSA P-256, 10 years, its trust domain as the one URI name (`spiffe://<trust-domain>`) |
//! | `ca.key` | its key, PKCS#8, 0600. Who has it can be anybody: keep the folder off the line |
//! | `crl.pem` | the revocation list, good for 30 days. Copy it to where `revocations` points; `pki crl` signs it again |
//! | `issued.jsonl` | what was issued and revoked, one JSON object a line, only ever appended to |
//!
//! A certificate is recorded before it is written, so that there is none that could not be revoked. Two processes on one folder take
//! turns. Nothing is overwritten but `crl.pem`, which is replaced as a whole.
//!
//! Not for: an agency that has a CA. Any that issues the names of `SpiffeId` will do.

mod authority;
mod files;
mod list;
mod register;

use std::{
    io::{self, Write as _},
    net::IpAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use rustls_pki_types::DnsName;
use time::OffsetDateTime;
use watchline_node::lifecycle::exit;
use watchline_proto::{Agency, PeerName, Role, SpiffeId, TrustDomain};

use authority::{Authority, Request};
use register::{Record, Register, Serial};

/// What `pki` can do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a CA: ca.pem, ca.key and crl.pem in a folder
    #[command(after_help = "\
Example:
  watchline-collector pki init --dir ca --trust-domain watch.example

The trust domain is part of every name that the CA issues and cannot be changed later. Nothing is overwritten.
Keep the folder where no collector runs; what others need of it is ca.pem and crl.pem.")]
    Init {
        /// The CA's folder
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Lower-case letters, digits, '.', '-' and '_', like watch.example
        #[arg(long, value_name = "NAME")]
        trust_domain: TrustDomain,
    },
    /// Issue a certificate: NAME.pem, NAME.key (0600) and ca.pem in another folder
    #[command(after_help = "\
Examples:
  watchline-collector pki issue --dir ca --role center                 --name center-1    --out center-1
  watchline-collector pki issue --dir ca --role collector --agency moh --name collector-1 --out collector-1
  watchline-collector pki issue --dir ca --role forwarder --agency moh --name host-01     --out host-01

To renew, issue the same name again into another folder and replace both files where they are used: the running program takes them
without a restart. The old certificate stays valid until it expires or is revoked.")]
    Issue(Issue),
    /// Revoke a certificate and sign crl.pem again
    #[command(after_help = "\
Examples:
  watchline-collector pki revoke --dir ca --name host-01 --agency moh
  watchline-collector pki revoke --dir ca --serial 5f3a…

Copy crl.pem to every collector and centre: each closes the connections of what is revoked within a second.
Where several certificates match, none is revoked: they are listed, and the exit status is 2.")]
    Revoke(Revoke),
    /// Show what was issued, when it ends and whether it is revoked
    List {
        /// The CA's folder
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Print JSON, an array of objects
        #[arg(long)]
        json: bool,
    },
    /// Sign crl.pem again before it expires (30 days)
    #[command(after_help = "\
An expired list still applies, but collectors raise an alarm: newer revocations could be missing. Sign it weekly, from a timer.")]
    Crl {
        /// The CA's folder
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
}

/// `pki issue`
#[derive(Debug, clap::Args)]
pub struct Issue {
    /// The CA's folder
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// What its holder is
    #[arg(long, value_parser = role_parser())]
    role: Role,
    /// The agency's code; for forwarders and collectors, not for centres
    #[arg(long, value_name = "CODE")]
    agency: Option<Agency>,
    /// The holder's own name, and that of the files
    #[arg(long)]
    name: PeerName,
    /// A DNS name as well, for tools that look for one; may be repeated
    #[arg(long, value_name = "NAME", value_parser = dns_name)]
    dns: Vec<DnsName<'static>>,
    /// An IP address as well; may be repeated
    #[arg(long, value_name = "ADDR")]
    ip: Vec<IpAddr>,
    /// How long it is valid
    #[arg(long, value_name = "N", default_value_t = 397, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// Where the files go; made if it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// `pki revoke`
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true).args(["name", "serial"]))]
pub struct Revoke {
    /// The CA's folder
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The holder's own name
    #[arg(long)]
    name: Option<PeerName>,
    /// Only of this agency
    #[arg(long, value_name = "CODE", conflicts_with = "serial")]
    agency: Option<Agency>,
    /// Only of this role
    #[arg(long, value_parser = role_parser(), conflicts_with = "serial")]
    role: Option<Role>,
    /// The certificate's serial number, as `pki list` shows it
    #[arg(long, value_name = "HEX")]
    serial: Option<Serial>,
}

/// Does it. An error is for exit status 1, with one line for people.
pub fn execute(command: Command) -> anyhow::Result<ExitCode> {
    let now = OffsetDateTime::now_utc();
    match command {
        Command::Init { dir, trust_domain } => init(&dir, &trust_domain, now),
        Command::Issue(request) => issue(request, now),
        Command::Revoke(request) => revoke(&request, now),
        Command::List { dir, json } => {
            let register = Register::open(&dir)?;
            let mut out = io::stdout().lock();
            if json {
                list::json(register.records(), now, &mut out)?
            } else {
                list::table(register.records(), now, &mut out)?
            }
            Ok(exit::SUCCESS.into())
        }
        Command::Crl { dir } => {
            let register = Register::open(&dir)?;
            let next = sign_list(&Authority::open(&dir)?, &register, now)?;
            say(&format!(
                "signed {}, good until {}",
                dir.join(files::REVOCATIONS).display(),
                list::day(next)
            ))?;
            Ok(exit::SUCCESS.into())
        }
    }
}

fn init(
    folder: &Path,
    trust_domain: &TrustDomain,
    now: OffsetDateTime,
) -> anyhow::Result<ExitCode> {
    files::make_folder(folder)?;
    for name in [
        files::CERTIFICATE,
        files::KEY,
        files::REVOCATIONS,
        files::REGISTER,
    ] {
        files::must_not_exist(&folder.join(name))?;
    }
    let authority = Authority::create(folder, trust_domain, now)?;
    let register = Register::create(folder)?;
    sign_list(&authority, &register, now)?;
    say(&format!(
        "made a CA for {trust_domain} in {}, valid until {}\nca.key is its secret: keep this folder off the line, and keep a copy",
        folder.display(),
        list::day(authority.not_after())
    ))?;
    Ok(exit::SUCCESS.into())
}

fn issue(request: Issue, now: OffsetDateTime) -> anyhow::Result<ExitCode> {
    if let Some(why) = agency_problem(request.role, request.agency.as_ref()) {
        return usage(why);
    }
    let mut register = Register::open(&request.dir)?;
    let authority = Authority::open(&request.dir)?;
    let domain = authority.trust_domain().clone();
    let id = SpiffeId::new(
        domain,
        request.role,
        request.agency.clone(),
        request.name.clone(),
    )?;

    let out = &request.out;
    let (certificate_file, key_file, ca_file) = (
        out.join(format!("{}.pem", request.name)),
        out.join(format!("{}.key", request.name)),
        out.join(files::CERTIFICATE),
    );
    if certificate_file == ca_file {
        return usage("the name \"ca\" is taken: ca.pem is the CA's own certificate");
    }
    files::make_folder(out)?;
    files::must_not_exist(&certificate_file)?;
    files::must_not_exist(&key_file)?;
    let ca_is_there = files::holds(&ca_file, authority.certificate_pem())?;

    let issued = authority.issue(
        &Request {
            id: id.clone(),
            dns: request.dns,
            ip: request.ip,
            days: request.days,
        },
        now,
    )?;
    let renews = register
        .records()
        .iter()
        .filter(|record| record.id() == &id && record.is_live(now))
        .count();
    register.issued(Record::new(
        issued.serial.clone(),
        id.clone(),
        now,
        issued.not_after,
    ))?;
    files::write_new(&key_file, issued.key_pem.as_bytes())?;
    files::write_new(&certificate_file, issued.certificate_pem.as_bytes())?;
    if !ca_is_there {
        files::write_new(&ca_file, authority.certificate_pem().as_bytes())?;
    }
    files::sync_folder(out)?;
    say(&format!(
        "issued {id}\n  serial {}, valid until {}\n  {}\n  {}\n  {}",
        issued.serial,
        list::day(issued.not_after),
        certificate_file.display(),
        key_file.display(),
        ca_file.display()
    ))?;
    if renews > 0 {
        say(&format!(
            "  {renews} earlier of this name is valid too, until it expires or is revoked by its serial number"
        ))?;
    }
    Ok(exit::SUCCESS.into())
}

fn revoke(request: &Revoke, now: OffsetDateTime) -> anyhow::Result<ExitCode> {
    let folder = &request.dir;
    let mut register = Register::open(folder)?;
    let authority = Authority::open(folder)?;
    let matching: Vec<&Record> = register
        .records()
        .iter()
        .filter(|record| request.matches(record))
        .collect();
    let standing: Vec<&&Record> = matching
        .iter()
        .filter(|record| record.revoked().is_none())
        .collect();
    // What has expired needs no revocation, unless it is all there is: signatures of its time are judged by the list, too.
    let live: Vec<&&Record> = standing
        .iter()
        .copied()
        .filter(|record| record.is_live(now))
        .collect();
    let candidates = if live.is_empty() { &standing } else { &live };
    match candidates[..] {
        [] if matching.is_empty() => {
            anyhow::bail!("no certificate in {} matches", register.file().display())
        }
        [] => say("already revoked")?,
        [record] => {
            let (serial, name) = (record.serial().clone(), record.id().clone());
            register.revoke(&serial, now)?;
            say(&format!("revoked {name}, serial {serial}"))?;
        }
        _ => {
            eprintln!("several certificates match; say which by --agency, --role or --serial:");
            list::table(
                candidates.iter().copied().copied(),
                now,
                &mut io::stderr().lock(),
            )?;
            return Ok(exit::USAGE.into());
        }
    }
    let next = sign_list(&authority, &register, now)?;
    say(&format!(
        "signed {}, good until {}: copy it to every collector and centre",
        folder.join(files::REVOCATIONS).display(),
        list::day(next)
    ))?;
    Ok(exit::SUCCESS.into())
}

impl Revoke {
    fn matches(&self, record: &Record) -> bool {
        if let Some(serial) = &self.serial {
            return record.serial() == serial;
        }
        let id = record.id();
        self.name.as_ref().is_some_and(|name| id.name() == name)
            && self
                .agency
                .as_ref()
                .is_none_or(|agency| id.agency() == Some(agency))
            && self.role.is_none_or(|role| id.role() == role)
    }
}

/// Signs `crl.pem` again with all that the register calls revoked; until when it is good.
fn sign_list(
    authority: &Authority,
    register: &Register,
    now: OffsetDateTime,
) -> anyhow::Result<OffsetDateTime> {
    let file = authority.folder().join(files::REVOCATIONS);
    let before = files::read_if_there(&file)?;
    let (pem, next) = authority.revocation_list(before.as_deref(), register.records(), now)?;
    files::replace(&file, pem.as_bytes())?;
    Ok(next)
}

fn agency_problem(role: Role, agency: Option<&Agency>) -> Option<&'static str> {
    match (role, agency) {
        (Role::Center, Some(_)) => Some("a center belongs to no agency: leave --agency out"),
        (Role::Forwarder | Role::Collector, None) => {
            Some("a forwarder or collector belongs to an agency: add --agency CODE")
        }
        _ => None,
    }
}

fn usage(why: &str) -> anyhow::Result<ExitCode> {
    eprintln!("error: {why}");
    Ok(exit::USAGE.into())
}

fn say(lines: &str) -> anyhow::Result<()> {
    writeln!(io::stdout().lock(), "{lines}").context("writing to standard output")
}

fn role_parser() -> impl clap::builder::TypedValueParser<Value = Role> {
    PossibleValuesParser::new(["forwarder", "collector", "center"])
        .try_map(|word| word.parse::<Role>())
}

fn dns_name(text: &str) -> Result<DnsName<'static>, String> {
    DnsName::try_from(text.to_owned()).map_err(|_| "not a DNS name".to_owned())
}

#[cfg(test)]
mod tests;
