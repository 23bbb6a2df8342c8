// The calls of the dashboard to the server, and the event stream: SSE over fetch, because an EventSource sends no token.

const API = "/api/v1";

export class Refused extends Error {}

function headers(more = {}) {
  const token = sessionStorage.getItem("token");
  return token ? { ...more, Authorization: `Bearer ${token}` } : more;
}

export async function call(method, path, body) {
  const sent = { method, headers: headers(body ? { "Content-Type": "application/json" } : {}), cache: "no-store" };
  if (body) sent.body = JSON.stringify(body);
  const answer = await fetch(API + path, sent);
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw Object.assign(new Refused(words(found, answer.status)), { status: answer.status });
  return found;
}

function words(problem, status) {
  const text = problem.detail || problem.title || `the server answered ${status}`;
  return problem.hint && !text.includes(problem.hint) ? `${text}. ${problem.hint}` : text;
}

export async function askEvents(after, signal) {
  const answer = await fetch(`${API}/events/stream`, {
    headers: headers({ Accept: "text/event-stream", "Last-Event-ID": String(after) }),
    cache: "no-store",
    signal,
  });
  if (answer.ok) return answer;
  throw Object.assign(new Refused(words(await answer.json().catch(() => ({})), answer.status)), { status: answer.status });
}

export async function* eventsOf(body, heard) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ; ) {
    const { value, done } = await reader.read();
    if (done) return;
    heard();
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
      if (data.length) yield JSON.parse(data.join("\n"));
    }
  }
}
