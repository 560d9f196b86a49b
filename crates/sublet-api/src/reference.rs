//! Reference texts made from the tables: the page of an error code, and `/llms.txt`.

use sublet_core::error::ErrorCode;

use crate::route::{Plane, ROUTES};

/// What an error code means, as plain text.
pub fn error_page(code: ErrorCode) -> String {
    format!(
        "{code}\n\n{}\n\nHTTP status {}, type {}, exit status {} of the commands.\n",
        code.advice(),
        code.status(),
        code.kind(),
        code.exit_status()
    )
}

/// The API in text for language models: what it is, and every route.
pub fn llms_text() -> String {
    let mut text = String::from(
        "# Sublet\n\n\
         > Model access (OpenAI-compatible) and raw compute, sold by usage.\n\n\
         Send a key as 'Authorization: Bearer sk-…'. Money is {\"amount\":\"12.50\",\"currency\":\"EUR\"}. \
         Lists take limit (at most 100), after, before, order. Errors are {\"error\":{\"message\",\"type\",\"code\",\"param\",\
         \"request_id\",\"doc_url\",\"alternatives\"}}; follow doc_url for what to do. \
         The whole description is at /openapi.json.\n",
    );
    for (plane, heading) in [
        (Plane::Public, "Without a key"),
        (Plane::Project, "With a project key (sk-sub-…)"),
        (Plane::Admin, "With an organization's admin key (sk-adm-…)"),
        (Plane::Operator, "With an operator key (sk-opr-…)"),
    ] {
        text.push_str(&format!("\n## {heading}\n\n"));
        for route in ROUTES.iter().filter(|route| route.plane == plane) {
            text.push_str(&format!("- {} {}: {}\n", route.method, route.path.replace("{*", "{"), route.summary));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_every_route() {
        let text = llms_text();
        assert_eq!(text.lines().filter(|line| line.starts_with("- ")).count(), ROUTES.len());
        assert!(text.contains("- POST /v1/jobs: "));
    }

    #[test]
    fn an_error_page_says_what_to_do() {
        let page = error_page(ErrorCode::InsufficientQuota);
        assert!(page.starts_with("insufficient_quota\n") && page.contains("429") && page.contains("add credit"));
    }
}
