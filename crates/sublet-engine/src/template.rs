//! Chat templates: the Jinja text that turns messages into a model's prompt.
//!
//! Invariants: a template is bounded in its length, rendering in its work ([`FUEL_MAX`]), and it sees only the
//! messages, the tools and the special tokens; a template has no clock and no files.
//!
//! Deliberately absent: documents (templates see them as undefined).

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, context};
use sublet_core::engine::{Calling, Chat, ChatMessage, Role, ToolTemplate};

use crate::apart::apart;
use crate::tools;

/// Template instructions one rendering may execute.
const FUEL_MAX: u64 = 5_000_000;
/// Longest template, in bytes: published ones have a few ten thousand. The depth of what a parser makes of it, and so
/// the stack that it takes, grows with it.
const TEMPLATE_BYTES_MAX: usize = 64 * 1_024;
const NAME: &str = "chat";

/// A parsed template.
pub struct ChatTemplate {
    environment: Environment<'static>,
    begin_token: Option<String>,
    end_token: Option<String>,
    tools: ToolTemplate,
    /// What this template writes before the JSON of a call.
    call_opening: &'static str,
}

impl ChatTemplate {
    /// Parses the text; the error says what is wrong with it.
    pub fn new(text: String, begin_token: Option<String>, end_token: Option<String>) -> Result<Self, String> {
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(format!("it has {} bytes; a template has at most {TEMPLATE_BYTES_MAX}", text.len()));
        }
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| error.to_string())?);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_fuel(Some(FUEL_MAX));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", to_json);
        let (tools, call_opening) = (tools::template_kind(&text), tools::call_opening(&text));
        let environment = apart(move || match environment.add_template_owned(NAME, text) {
            Ok(()) => Ok(environment),
            Err(error) => Err(error.to_string()),
        })?;
        Ok(Self { environment, begin_token, end_token, tools, call_opening })
    }

    /// What it does with tools.
    pub fn tools(&self) -> ToolTemplate {
        self.tools
    }

    /// The prompt up to where the assistant speaks, or, if it has to call, to where what it writes of
    /// the call begins.
    pub fn render(&self, chat: &Chat) -> Result<String, String> {
        match (self.tools, &chat.calling) {
            (ToolTemplate::Absent, Calling::Forced | Calling::Named(_)) => {
                let told = tools::tell_in_system(chat);
                // Some templates have no system prompt; what the user says they all have.
                self.render_messages(&told, &[]).or_else(|_| self.render_messages(&tools::tell_in_user(chat), &[]))
            }
            (ToolTemplate::Absent, Calling::Free) => self.render_messages(&chat.messages, &[]),
            (ToolTemplate::Shown, _) | (ToolTemplate::Tagged, Calling::Free) => {
                self.render_messages(&chat.messages, &tools::values(&chat.tools))
            }
            (ToolTemplate::Tagged, calling @ (Calling::Forced | Calling::Named(_))) => {
                let mut prompt = self.render_messages(&chat.messages, &tools::values(&chat.tools))?;
                prompt.push_str(self.call_opening);
                if let Calling::Named(name) = calling {
                    prompt.push_str(&tools::named_opening(name));
                }
                Ok(prompt)
            }
        }
    }

    fn render_messages(&self, messages: &[ChatMessage], tools: &[Value]) -> Result<String, String> {
        let messages: Vec<Value> = messages.iter().map(message_value).collect();
        // Templates ask whether there are tools, and some take an empty list for some.
        let tools = if tools.is_empty() { Value::UNDEFINED } else { Value::from(tools.to_vec()) };
        let template = self.environment.get_template(NAME).map_err(|error| error.to_string())?;
        template
            .render(context! {
                messages => messages,
                tools => tools,
                add_generation_prompt => true,
                bos_token => self.begin_token.as_deref().unwrap_or(""),
                eos_token => self.end_token.as_deref().unwrap_or(""),
            })
            .map_err(|error| error.detail().map_or_else(|| error.to_string(), ToOwned::to_owned))
    }
}

fn message_value(message: &ChatMessage) -> Value {
    let role = match message.role {
        // Templates of open models know no developer; it is the newer name of the same role.
        Role::System | Role::Developer => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    // A key that is there with nothing in it reads as there in some templates.
    let mut fields = vec![("role", Value::from(role)), ("content", Value::from(message.content.as_str()))];
    if let Some(name) = &message.name {
        fields.push(("name", Value::from(name.as_str())));
    }
    if !message.tool_calls.is_empty() {
        fields.push(("tool_calls", Value::from_iter(message.tool_calls.iter().map(tools::call_value))));
    }
    if let Some(call) = &message.tool_call_id {
        fields.push(("tool_call_id", Value::from(call.as_str())));
    }
    Value::from_pairs(fields)
}

/// Templates call this to refuse messages they cannot express.
fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// A prompt that depends on the wall clock could not be repeated; templates ask
/// `strftime_now is defined` only rarely, so the refusal is explicit.
fn strftime_now(_format: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, "the chat template asks for the current date, which is not available"))
}

/// Python's `json.dumps` spacing, and no HTML escaping, unlike minijinja's own filter.
fn to_json(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let _: Option<bool> = options.get("ensure_ascii")?;
    let _: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;
    let failed = |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, error.to_string());
    let mut bytes = Vec::new();
    match indent {
        Some(width) => {
            let indent = " ".repeat(width.min(16));
            let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
            serde::Serialize::serialize(value, &mut serializer).map_err(failed)?;
        }
        None => {
            let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, PythonSpacing);
            serde::Serialize::serialize(value, &mut serializer).map_err(failed)?;
        }
    }
    let text = String::from_utf8(bytes).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    Ok(Value::from_safe_string(text))
}

/// `", "` and `": "` between items, as models saw it in training.
struct PythonSpacing;

impl serde_json::ser::Formatter for PythonSpacing {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }
    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }
    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(role: Role, content: &str) -> ChatMessage {
        ChatMessage::text(role, content)
    }

    fn render(template: &str, messages: &[ChatMessage]) -> Result<String, String> {
        let chat = messages.to_vec().into();
        ChatTemplate::new(template.to_owned(), Some("<s>".to_owned()), Some("</s>".to_owned()))?.render(&chat)
    }

    #[test]
    fn templates_use_what_published_ones_use() {
        let chat = [message(Role::System, " be brief "), message(Role::User, "hi"), message(Role::Assistant, "yo")];
        for (template, expected) in [
            (
                "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m['content'] | trim }}{% endfor %}",
                "<s>[system]be brief[user]hi[assistant]yo",
            ),
            (
                "{% set ns = namespace(n=0) %}{% for m in messages %}{% if m.role == 'user' %}{% continue %}{% endif %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
                "2",
            ),
            ("{{ messages[0].content.strip().upper() }}{% if tools %}T{% endif %}{{ eos_token }}", "BE BRIEF</s>"),
            ("{{ messages[1:] | length }}{{ {'a': [1, 'é<']} | tojson }}", "2{\"a\": [1, \"é<\"]}"),
            (
                "{%- if messages[0]['role'] == 'system' -%}\n  S\n{%- endif %}\n{% if add_generation_prompt %}\nA:\n{% endif %}",
                "SA:\n",
            ),
        ] {
            assert_eq!(render(template, &chat), Ok(expected.to_owned()), "{template}");
        }
    }

    #[test]
    fn a_template_may_refuse_and_cannot_run_for_ever() {
        let user = [message(Role::User, "hi")];
        assert_eq!(render("{{ raise_exception('no system first') }}", &user), Err("no system first".to_owned()));
        assert!(render("{{ strftime_now('%Y') }}", &user).is_err_and(|error| error.contains("date")));
        assert!(render("{% for a in range(9999) %}{% for b in range(9999) %}{{ b }}{% endfor %}{% endfor %}", &user).is_err());
        assert!(ChatTemplate::new("{% if %}".to_owned(), None, None).is_err());
    }

    #[test]
    fn a_template_of_nothing_but_calls_does_not_end_the_process() {
        let calls = |bytes: usize| format!("{{{{ a{} }}}}", "()".repeat(bytes / 2));
        assert!(ChatTemplate::new(calls(TEMPLATE_BYTES_MAX - 16), None, None).is_ok());
        assert!(ChatTemplate::new(calls(TEMPLATE_BYTES_MAX), None, None).is_err_and(|error| error.contains("at most")));
    }
}
