//! Names and options of `shardwise models …`, and those about keys and trust.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use shardwise_types::Timestamp;

#[derive(Subcommand)]
pub(crate) enum ModelsCommand {
    /// List models, their aliases and their versions.
    List(ListArguments),
    /// Show what a version is, who signed it, and when aliases came to it and left it.
    Show(ShowArguments),
    /// Show in what two versions differ.
    Diff(DiffArguments),
    /// Verify a version, or all of them and the aliases; exit code 1 when one is refused.
    Verify(VerifyModelsArguments),
    /// Point an alias to a version; what no gate let pass becomes champion with --force only.
    Promote(PromoteArguments),
    /// Make the champion before the champion again.
    Rollback(RollbackArguments),
    /// Write a version into a single file.
    Export(ExportArguments),
    /// Verify an exported version and add it.
    Import(ImportArguments),
    /// Find versions that nothing names any more; removes them with --delete.
    Gc(GcArguments),
}

/// Which model.
#[derive(Args)]
pub(crate) struct PlaceArguments {
    /// The models: a folder, or a URL such as file:///folder or s3://bucket/prefix.
    #[arg(long)]
    pub(crate) models: PathBuf,
    /// The model's name.
    #[arg(long, default_value = "default")]
    pub(crate) name: String,
}

/// Which versions may be served.
#[derive(Args)]
pub(crate) struct TrustArguments {
    /// File of public keys, one a line; one of them must have signed.
    #[arg(long, value_name = "FILE")]
    pub(crate) trusted_keys: Option<PathBuf>,
    /// Refuse what was trained on data that ends before this instant.
    #[arg(long, value_name = "TIME")]
    pub(crate) trained_since: Option<Timestamp>,
    /// Refuse what a trusted key last signed before this instant.
    #[arg(long, value_name = "TIME", requires = "trusted_keys")]
    pub(crate) signed_since: Option<Timestamp>,
}

/// With what versions are signed.
#[derive(Args)]
pub(crate) struct SigningArguments {
    /// File with the secret key that signs, 64 hexadecimal digits; without it SHARDWISE_SIGNING_KEY, or no signature.
    #[arg(long, value_name = "FILE")]
    pub(crate) signing_key: Option<PathBuf>,
}

/// Who does it and why, for the history.
#[derive(Args)]
pub(crate) struct WhoArguments {
    /// Who does it; the user's name when left out.
    #[arg(long)]
    pub(crate) who: Option<String>,
}

#[derive(Args)]
pub(crate) struct ListArguments {
    /// The models: a folder, or a URL such as file:///folder or s3://bucket/prefix.
    #[arg(long)]
    pub(crate) models: PathBuf,
    /// Only the model of this name.
    #[arg(long)]
    pub(crate) name: Option<String>,
}

#[derive(Args)]
pub(crate) struct ShowArguments {
    /// An alias, a version or the beginning of one.
    #[arg(default_value = "champion")]
    pub(crate) version: String,
    #[command(flatten)]
    pub(crate) place: PlaceArguments,
}

#[derive(Args)]
pub(crate) struct DiffArguments {
    /// An alias, a version or the beginning of one.
    pub(crate) from: String,
    /// Another.
    pub(crate) to: String,
    #[command(flatten)]
    pub(crate) place: PlaceArguments,
}

#[derive(Args)]
pub(crate) struct VerifyModelsArguments {
    /// An alias, a version or the beginning of one; all when left out.
    pub(crate) version: Option<String>,
    #[command(flatten)]
    pub(crate) place: PlaceArguments,
    #[command(flatten)]
    pub(crate) trust: TrustArguments,
}

#[derive(Args)]
pub(crate) struct PromoteArguments {
    /// An alias, a version or the beginning of one.
    pub(crate) version: String,
    #[command(flatten)]
    pub(crate) place: PlaceArguments,
    /// The alias that moves: champion, challenger or another.
    #[arg(long, default_value = "champion")]
    pub(crate) alias: String,
    /// Let it go live though the last gate refused it, or none judged it; the history keeps that and the reasons.
    #[arg(long)]
    pub(crate) force: bool,
    /// Why, in a sentence for the history.
    #[arg(long)]
    pub(crate) why: String,
    #[command(flatten)]
    pub(crate) who: WhoArguments,
    #[command(flatten)]
    pub(crate) trust: TrustArguments,
    #[command(flatten)]
    pub(crate) signing: SigningArguments,
}

#[derive(Args)]
pub(crate) struct RollbackArguments {
    #[command(flatten)]
    pub(crate) place: PlaceArguments,
    /// Why, in a sentence for the history.
    #[arg(long, default_value = "rolled back by hand")]
    pub(crate) why: String,
    #[command(flatten)]
    pub(crate) who: WhoArguments,
}

#[derive(Args)]
pub(crate) struct ExportArguments {
    /// An alias, a version or the beginning of one.
    #[arg(default_value = "champion")]
    pub(crate) version: String,
    #[command(flatten)]
    pub(crate) place: PlaceArguments,
    /// The file to write, a tar; must not exist.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

#[derive(Args)]
pub(crate) struct ImportArguments {
    /// A file that `shardwise models export` wrote.
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) place: PlaceArguments,
    #[command(flatten)]
    pub(crate) trust: TrustArguments,
}

#[derive(Args)]
pub(crate) struct GcArguments {
    #[command(flatten)]
    pub(crate) place: PlaceArguments,
    /// Versions that aliases named in so many last entries of the history stay.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep_entries: u32,
    /// Versions that were written in so many last hours stay.
    #[arg(long, default_value_t = 24)]
    pub(crate) min_age_hours: u32,
    /// Remove them; without it they are only listed.
    #[arg(long)]
    pub(crate) delete: bool,
    #[command(flatten)]
    pub(crate) who: WhoArguments,
}
