//! The options every command takes.

use std::path::PathBuf;

use clap::Args;

/// Options of every client command; the binary flattens them into its own parser.
#[derive(Args, Clone, Debug, Default)]
pub struct Global {
    /// Address of the cloud, such as http://127.0.0.1:8080 (or SUBLET_URL)
    #[arg(long, global = true, value_name = "URL")]
    pub url: Option<String>,
    /// A key; its prefix says which plane it opens (or SUBLET_API_KEY, SUBLET_ADMIN_KEY, SUBLET_OPERATOR_KEY)
    #[arg(long, global = true, value_name = "KEY", hide = true)]
    pub key: Vec<String>,
    /// Where credentials.json lies when no address or key is given (or SUBLET_DATA_DIR)
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Print the API's own objects as JSON
    #[arg(long, global = true)]
    pub json: bool,
}
