//! What the command line says about itself: completions and the manual page.

use std::io::stdout;

use clap::CommandFactory;

use super::{arguments::Arguments, exit::Failure};

/// Prints a shell's completion script.
pub(super) fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "haldane", &mut script);
    std::io::Write::write_all(&mut stdout(), &script)?;
    Ok(())
}

/// Prints the manual page, one for all verbs.
pub(super) fn page() -> Result<(), Failure> {
    let mut command = Arguments::command();
    command.build();
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut text)?;
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        if verb.get_name() == "help" {
            continue;
        }
        let man = clap_mangen::Man::new(verb.clone());
        text.extend(format!(".SH \"HALDANE {}\"\n", verb.get_name().to_uppercase()).bytes());
        man.render_synopsis_section(&mut text)?;
        man.render_description_section(&mut text)?;
        man.render_options_section(&mut text)?;
    }
    std::io::Write::write_all(&mut stdout(), &text)?;
    Ok(())
}
