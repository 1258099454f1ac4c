//! `marathon-sync`: for now says what it will do, and that it does not do it yet.

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let message = "marathon-sync: will keep the router's `frontend:` lists in Redis equal to the \
                   live tasks of a Marathon cluster; this version cannot do that yet";
    // Nobody reads a closed standard error; the exit code says it as well.
    let _is_written = writeln!(std::io::stderr(), "{message}");
    ExitCode::from(2)
}
