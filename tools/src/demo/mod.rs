//! stub
#[derive(clap::Args, Debug)]
pub(crate) struct Args {}
pub(crate) fn run(_: &Args, _: &mut crate::output::Output) -> anyhow::Result<()> {
    Ok(())
}
