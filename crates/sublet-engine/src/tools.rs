//! Tools in prompts: as chat templates expect them, and in plain words where a template expects none.
//!
//! Invariant: what a model is shown of a tool is what its caller gave, names and JSON unchanged.
//!
//! Deliberately absent: reading calls out of what a model writes, which is the business of whoever
//! answers the caller.

use minijinja::value::{Serde, Value};
use serde_json::json;
use sublet_core::engine::{Calling, Chat, ChatMessage, Role, Tool, ToolCall, ToolTemplate};

/// Before and after a call in the form that Hermes introduced and Qwen took over.
const TAG: &str = "<tool_call>";

/// What a template does with tools, by its text.
pub fn template_kind(text: &str) -> ToolTemplate {
    if !text.contains("tools") {
        return ToolTemplate::Absent;
    }
    // Some models put markup of their own between the same tags.
    let is_json = text.contains(TAG) && !text.contains("<function=");
    if is_json { ToolTemplate::Tagged } else { ToolTemplate::Shown }
}

/// The tag, with the end of a line if the template writes one after it.
pub fn call_opening(text: &str) -> &'static str {
    let writes_line = text.match_indices(TAG).any(|(at, _)| {
        let rest = &text[at + TAG.len()..];
        rest.starts_with("\\n") || rest.starts_with('\n')
    });
    if writes_line { "<tool_call>\n" } else { TAG }
}

/// What comes before the arguments of a call of one name. A blank at its end would be a token of its own, after
/// which models expect something else.
pub fn named_opening(name: &str) -> String {
    format!("{{\"name\": {}, \"arguments\":", json!(name))
}

/// Tools in OpenAI's shape.
pub fn values(tools: &[Tool]) -> Vec<Value> {
    let value = |tool| Value::from(Serde(json!({"type": "function", "function": function(tool)})));
    tools.iter().map(value).collect()
}

fn function(tool: &Tool) -> serde_json::Value {
    let parameters = tool.parameters.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let mut function = json!({"name": tool.name});
    if let Some(description) = &tool.description {
        function["description"] = json!(description);
    }
    // Templates go through the properties without asking whether there are any.
    function["parameters"] = parameters.unwrap_or_else(|| json!({"type": "object", "properties": {}}));
    function
}

/// A call of an earlier turn. Templates write arguments that are objects as JSON of their own style.
pub fn call_value(call: &ToolCall) -> Value {
    let parsed: Option<serde_json::Map<String, serde_json::Value>> = serde_json::from_str(&call.arguments).ok();
    let arguments = parsed.map_or_else(|| json!(call.arguments), serde_json::Value::Object);
    Value::from(Serde(json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}})))
}

/// The messages with the tools in the system prompt.
pub fn tell_in_system(chat: &Chat) -> Vec<ChatMessage> {
    let mut messages = chat.messages.clone();
    match messages.first_mut().filter(|first| matches!(first.role, Role::System | Role::Developer)) {
        Some(first) => first.content = format!("{}\n\n{}", first.content, told(chat)),
        None => messages.insert(0, ChatMessage::text(Role::System, told(chat))),
    }
    messages
}

/// The messages with the tools before what the user says first.
pub fn tell_in_user(chat: &Chat) -> Vec<ChatMessage> {
    let mut messages = chat.messages.clone();
    if let Some(first) = messages.iter_mut().find(|message| message.role == Role::User) {
        first.content = format!("{}\n\n{}", told(chat), first.content);
    }
    messages
}

fn told(chat: &Chat) -> String {
    let mut text = "Functions that can be called, one JSON object per line:\n".to_owned();
    for tool in &chat.tools {
        text.push_str(&function(tool).to_string());
        text.push('\n');
    }
    text.push_str("Answer with JSON only: ");
    match &chat.calling {
        Calling::Named(name) => {
            text.push_str("the arguments for calling ");
            text.push_str(name);
        }
        Calling::Free | Calling::Forced => text.push_str("an object with the \"name\" of one function and its \"arguments\""),
    }
    text.push('.');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::ChatTemplate;

    /// Written with the means that published templates use, in the ways in which they differ.
    const QWEN: &str = "{%- if tools %}TOOLS{% for tool in tools %}\n{{ tool | tojson }}{% endfor %}\n{% endif -%}
{% for m in messages %}{% if m.tool_calls %}[{{ m.role }}]{% if m.content %}{{ m.content }}{% endif %}{% for c in m.tool_calls %}{% if c.function is defined %}{% set c = c.function %}{% endif %}{{ '<tool_call>\\n{\"name\": \"' + c.name + '\", \"arguments\": ' }}{{ c.arguments | tojson }}{{ '}\\n</tool_call>' }}{% endfor %}
{% elif m.role == 'tool' %}[user]<tool_response>{{ m.content }}</tool_response>
{% else %}[{{ m.role }}]{{ m.content }}
{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";
    const LLAMA: &str = "{% if not tools is defined %}{% set tools = none %}{% endif %}{% if tools is not none %}{% for t in tools %}{{ t | tojson(indent=4) }};{% endfor %}{% endif %}
{% for m in messages %}{% if 'tool_calls' in m %}{% if m.tool_calls | length != 1 %}{{ raise_exception('one at a time') }}{% endif %}{% set f = m.tool_calls[0].function %}{'name': '{{ f.name }}', 'parameters': {{ f.arguments | tojson }}}
{% else %}{{ m.role }}: {{ m.content }}
{% endif %}{% endfor %}assistant: ";
    const MISTRAL: &str = "{% if tools is not none and tools %}[TOOLS]{{ tools | tojson }}[/TOOLS]{% endif %}
{%- for m in messages %}{% if m.tool_calls is defined and m.tool_calls is not none %}[CALLS]{% for c in m.tool_calls %}{% set out = c.function | tojson %}{{ out[:-1] }}{{ ', \"id\": \"' + c.id + '\"}' }}{% endfor %}{% elif m.role == 'tool' %}[RESULT {{ m.tool_call_id }}]{{ m.content | string }}{% else %}[INST]{{ m.content }}{% endif %}{% endfor %}";
    const PLAIN: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: ";
    const NO_SYSTEM: &str = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}{% for m in messages %}{{ m.content }}|{% endfor %}";

    fn tool(name: &str, parameters: Option<&str>) -> Tool {
        Tool { name: name.to_owned(), description: Some("Says \"hi\".".to_owned()), parameters: parameters.map(str::to_owned) }
    }

    fn conversation(calling: Calling) -> Chat {
        let call =
            |id: &str, arguments: &str| ToolCall { id: id.to_owned(), name: "f".to_owned(), arguments: arguments.to_owned() };
        let asked = ChatMessage { tool_calls: vec![call("c1", r#"{"b":1,"a":"é"}"#)], ..ChatMessage::text(Role::Assistant, "") };
        let told = ChatMessage { tool_call_id: Some("c1".to_owned()), ..ChatMessage::text(Role::Tool, "7") };
        let parameters = r#"{"type":"object","properties":{"b":{"type":"integer"}}}"#;
        Chat {
            messages: vec![ChatMessage::text(Role::User, "go"), asked, told],
            tools: vec![tool("f", Some(parameters)), tool("g", None)],
            calling,
        }
    }

    fn render(template: &str, chat: &Chat) -> String {
        ChatTemplate::new(template.to_owned(), None, None).and_then(|template| template.render(chat)).expect("it renders")
    }

    #[test]
    fn templates_say_what_they_do_with_tools() {
        for (text, kind) in [
            (QWEN, ToolTemplate::Tagged),
            (LLAMA, ToolTemplate::Shown),
            (MISTRAL, ToolTemplate::Shown),
            (PLAIN, ToolTemplate::Absent),
            ("{{ tools }}<tool_call><function=f>", ToolTemplate::Shown),
        ] {
            assert_eq!(template_kind(text), kind, "{text}");
        }
    }

    #[test]
    fn tools_and_calls_are_rendered_as_published_templates_expect_them() {
        let f = r#"{"type": "function", "function": {"name": "f", "description": "Says \"hi\".", "parameters": {"type": "object", "properties": {"b": {"type": "integer"}}}}}"#;
        let g = r#"{"type": "function", "function": {"name": "g", "description": "Says \"hi\".", "parameters": {"type": "object", "properties": {}}}}"#;
        let chat = conversation(Calling::Free);
        let called = r#"{"b": 1, "a": "é"}"#;
        let qwen = format!(
            "TOOLS{f}{g}[user]go\n[assistant]<tool_call>\n{{\"name\": \"f\", \"arguments\": {called}}}\n</tool_call>[user]<tool_response>7</tool_response>\n[assistant]"
        );
        assert_eq!(render(QWEN, &chat), qwen);
        let llama = render(LLAMA, &chat);
        assert!(llama.ends_with(&format!("user: go\n{{'name': 'f', 'parameters': {called}}}\ntool: 7\nassistant: ")), "{llama}");
        assert!(llama.contains("\"name\": \"g\""), "{llama}");
        let mistral = format!(
            "[TOOLS][{f}, {g}][/TOOLS][INST]go[CALLS]{{\"name\": \"f\", \"arguments\": {called}, \"id\": \"c1\"}}[RESULT c1]7"
        );
        assert_eq!(render(MISTRAL, &chat), mistral);
    }

    #[test]
    fn no_tools_are_no_tools_to_every_template() {
        let chat: Chat = vec![ChatMessage::text(Role::User, "go")].into();
        for template in [QWEN, LLAMA, MISTRAL] {
            let prompt = render(template, &chat);
            assert!(!prompt.contains('{') && !prompt.contains("TOOLS"), "{prompt}");
        }
    }

    #[test]
    fn arguments_that_are_no_object_stay_text() {
        let mut chat = conversation(Calling::Free);
        for arguments in ["{\"b\":", "7", ""] {
            chat.messages[1].tool_calls[0].arguments = arguments.to_owned();
            let shown = render("{{ messages[1].tool_calls[0].function.arguments is string }}{{ tools | length }}", &chat);
            assert_eq!(shown, "True2", "{arguments}");
        }
    }

    #[test]
    fn a_forced_call_begins_where_the_model_would_begin_it() {
        let forced = render(QWEN, &conversation(Calling::Forced));
        assert!(forced.ends_with("[assistant]<tool_call>\n"), "{forced}");
        let named = render(QWEN, &conversation(Calling::Named("f".to_owned())));
        assert!(named.ends_with("<tool_call>\n{\"name\": \"f\", \"arguments\":"), "{named}");
        let plain = conversation(Calling::Free);
        assert_eq!(render(LLAMA, &conversation(Calling::Forced)), render(LLAMA, &plain), "its form is not known");
    }

    #[test]
    fn a_model_without_tools_is_told_of_them_when_it_has_to_call() {
        assert!(!render(PLAIN, &conversation(Calling::Free)).contains("Functions"));
        let named = render(PLAIN, &conversation(Calling::Named("g".to_owned())));
        assert!(named.starts_with("system: Functions that can be called"), "{named}");
        assert!(named.contains(r#"{"name":"f","description":"Says \"hi\".","parameters":{"#), "{named}");
        assert!(named.contains("the arguments for calling g.\nuser: go"), "{named}");
        let mut chat = conversation(Calling::Forced);
        assert!(render(NO_SYSTEM, &chat).starts_with("Functions"), "a template without a system prompt");
        chat.messages.insert(0, ChatMessage::text(Role::System, "be brief"));
        let joined = render(PLAIN, &chat);
        assert!(joined.starts_with("system: be brief\n\nFunctions") && joined.matches("system: ").count() == 1, "{joined}");
    }
}
