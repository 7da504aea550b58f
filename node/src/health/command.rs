//! The `status` command of both programs: asks the running process, and says how it does by exit status too.

use std::{net::SocketAddr, process::ExitCode};

use serde_json::Value;

use super::ask;
use crate::lifecycle::exit;

/// HTTP's "OK".
const OK: u16 = 200;

/// Asks the process whose `[health] listen` is `listen`, and prints what `/status` answers: as JSON, or as `shown` makes it. Exit status 0 ready, 3
/// not ready, 4 nobody answers.
///
/// # Errors
/// No runtime could be started, or the answer could not be printed.
pub fn status(
    listen: SocketAddr,
    json: bool,
    shown: impl FnOnce(&Value) -> String,
) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let answer = runtime.block_on(async {
        let ready = ask(listen, "/readyz").await?.0 == OK;
        let (code, body) = ask(listen, "/status").await?;
        anyhow::ensure!(code == OK, "/status answered {code}");
        anyhow::Ok((ready, serde_json::from_str::<Value>(&body)?))
    });
    let (ready, status) = match answer {
        Ok(answer) => answer,
        Err(error) => {
            eprintln!("error: nobody answers on {listen}: {error:#}");
            return Ok(exit::UNREACHABLE.into());
        }
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print!("{}", shown(&status));
    }
    Ok(if ready {
        ExitCode::SUCCESS
    } else {
        exit::NOT_READY.into()
    })
}
