//! Writes the OpenAPI document to the file named by the first argument.

fn main() -> std::io::Result<()> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "docs/reference/openapi.json".to_owned());
    std::fs::write(path, format!("{:#}\n", sublet_api::openapi::document()))
}
