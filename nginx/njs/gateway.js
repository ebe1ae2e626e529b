// Only what nginx cannot say by itself: who the client is, which model the body names, which replica has its beginning,
// and error bodies in OpenAI's shape. Preloaded JSON: `keys` (SHA-256 -> client), `clients` (name -> models and body
// size allowed, label in metrics), `models` (name -> pool, task, and replicas where affinity is wanted), `observe` (edges
// of histograms), `config` (revision).

import crypto from 'crypto';

// Characters of the conversation's start that choose the replica: a system prompt and the first question.
const PREFIX_LENGTH = 1024;

// Fields by which a request can make an engine run code, read what it should not, or stop: see docs/gateway.md.
const REFUSED = ['chat_template', 'prompt_embeds', 'media_io_kwargs', 'guided_regex', 'kv_transfer_params',
                 'ec_transfer_params'];
const REFUSED_WITHIN = [['chat_template_kwargs', 'chat_template'], ['structured_outputs', 'regex']];

function own(object, key) {
    return Object.prototype.hasOwnProperty.call(object, key) ? object[key] : undefined;
}

function client(r) {
    const bearer = /^Bearer +([^\s]+)$/i.exec(r.headersIn.Authorization || '');
    if (!bearer) {
        return '';
    }
    return own(keys, crypto.createHash('sha256').update(bearer[1]).digest('hex')) || '';
}

// Access phase: lets the request pass with $model, $pool and $preferred set, or answers it.
async function admit(r) {
    const limits = clients[r.variables.client];
    if (Number(r.headersIn['Content-Length'] || 0) > limits.max_body_bytes) {
        r.return(413);
        return;
    }
    const text = await r.readRequestText();
    if (!r.headersIn['Content-Length'] && Buffer.byteLength(text) > limits.max_body_bytes) {
        r.return(413);
        return;
    }
    let body;
    try {
        body = JSON.parse(text);
    } catch (e) {
        fail(r, 400, 'the body is not JSON, or nested deeper than 32 levels', 'invalid_request_error', null);
        return;
    }
    const name = body && typeof body === 'object' ? body.model : undefined;
    if (typeof name !== 'string') {
        fail(r, 400, 'the body names no model: "model" must be a string', 'invalid_request_error', null);
        return;
    }
    const model = own(models, name);
    if (!model || (limits.models && !own(limits.models, name))) {
        const shown = name.slice(0, 128);
        fail(r, 404, `The model \`${shown}\` does not exist or you do not have access to it.`, 'NotFoundError',
             'model_not_found');
        return;
    }
    if ((model.task === 'embed') !== (r.uri === '/v1/embeddings')) {
        const where = model.task === 'embed' ? '/v1/embeddings' : '/v1/chat/completions or /v1/completions';
        fail(r, 400, `This model answers at ${where} only.`, 'invalid_request_error', null);
        return;
    }
    const refused = refusedField(body);
    if (refused) {
        fail(r, 400, `"${refused}" is not allowed in a request`, 'invalid_request_error', null);
        return;
    }
    if (fetches(body)) {
        fail(r, 400, 'media is taken from data: URLs only, never fetched: send it within the request',
             'invalid_request_error', null);
        return;
    }
    r.variables.model = name;
    r.variables.pool = model.pool;
    if (model.replicas) {
        r.variables.preferred = preferred(model.replicas, name + '\n' + start(body));
    }
}

function refusedField(body) {
    const field = REFUSED.find((key) => given(body[key]));
    if (field) {
        return field;
    }
    const within = REFUSED_WITHIN.find((path) => given(body[path[0]]) && given(body[path[0]][path[1]]));
    return within ? within.join('.') : '';
}

// Whether an engine would have to fetch something, from wherever a client says: image_url, video_url, audio_url ...
function fetches(body) {
    return Array.isArray(body.messages) && body.messages.some((message) => (
        message && Array.isArray(message.content) && message.content.some((part) => (
            part && typeof part === 'object' && Object.keys(part).some((key) => (
                /_url$/.test(key) && !isData(part[key])))))));
}

function isData(media) {
    const url = media && typeof media === 'object' ? media.url : media;
    return !given(url) || (typeof url === 'string' && /^data:/i.test(url));
}

function given(value) {
    return value !== undefined && value !== null;
}

// Consistent hashing, by the highest weight: a replica that comes or goes moves its own beginnings and no others.
function preferred(replicas, text) {
    const md5 = (what) => crypto.createHash('md5').update(what).digest('hex');
    const prefix = md5(text);
    return Object.keys(replicas).map((replica) => [md5(prefix + replica), replica]).sort().pop()[1];
}

// The text that the engine's prefix cache would recognise first.
function start(body) {
    if (!Array.isArray(body.messages)) {
        const prompt = Array.isArray(body.prompt) ? body.prompt[0] : body.prompt;
        return (typeof prompt === 'string' ? prompt : JSON.stringify(prompt) || '').slice(0, PREFIX_LENGTH);
    }
    // up to the first question: what follows it is another text at each turn
    const asked = body.messages.findIndex((message) => message && message.role === 'user');
    return body.messages.slice(0, asked + 1 || 1).map((message) => {
        const content = message && message.content;
        return Array.isArray(content) ? content.map((part) => (part && part.text) || '').join('\n') : String(content);
    }).join('\n').slice(0, PREFIX_LENGTH);
}

// The shape of OpenAI's GET /v1/models, with what this client may ask for. `created` has no meaning here.
function list_models(r) {
    const allowed = clients[r.variables.client].models;
    const data = Object.keys(models).filter((name) => !allowed || own(allowed, name)).map((name) => (
        {id: name, object: 'model', created: 0, owned_by: 'vllm-onprem'}));
    r.headersOut['Content-Type'] = 'application/json';
    r.return(200, JSON.stringify({object: 'list', data: data}) + '\n');
}

const MESSAGES = {
    400: ['invalid_request_error', 'nginx could not read the request'],
    401: ['invalid_request_error', 'missing or wrong API key: send it as Authorization: Bearer KEY'],
    404: ['invalid_request_error', 'unknown path'],
    405: ['invalid_request_error', 'method not allowed'],
    408: ['invalid_request_error', 'the request took too long to arrive'],
    413: ['invalid_request_error', 'the request body is too large'],
    414: ['invalid_request_error', 'the request line is too long'],
    429: ['rate_limit_error', 'too many requests of this client at once or per second; try again'],
    502: ['server_error', 'no replica answered'],
    503: ['server_error', 'no replica is ready; try again'],
    504: ['server_error', 'the replica did not answer in time'],
};
const CODES = {401: 'invalid_api_key', 429: 'rate_limit_exceeded'};
const RETRY_AFTER = {429: '1', 503: '5'};

// error_page sends every error that nginx itself makes through here.
function error(r) {
    const status = Number(r.variables.status) || 500;
    const known = MESSAGES[status] || (status < 500 ? ['invalid_request_error', 'the request was refused']
                                                    : ['server_error', 'internal error']);
    fail(r, status, known[1], known[0], CODES[status] || null);
}

function fail(r, status, message, type, code) {
    r.headersOut['Content-Type'] = 'application/json';
    if (status === 401) {
        r.headersOut['WWW-Authenticate'] = 'Bearer';
    }
    if (RETRY_AFTER[status]) {
        r.headersOut['Retry-After'] = RETRY_AFTER[status];
    }
    r.return(status, JSON.stringify({error: {message: message, type: type, param: null, code: code}}) + '\n');
}

// Which configuration these workers run: a reload is over when it is the new one.
function health(r) {
    r.headersOut['Content-Type'] = 'text/plain';
    r.return(200, `revision ${config.revision}\n`);
}

function add(key, value) {
    return ngx.shared.counters.incr(key, value, 0);
}

// Log phase, once for each request. Keys are bounded: labels of clients are (see clients.json), pools and edges are from
// the plan, statuses are those that exist.
function count(r) {
    const v = r.variables, status = Number(v.status), pool = v.pool || '', seconds = Number(v.request_time);
    const who = own(clients, v.client);
    try {
        if (pool || status >= 500) {
            add(`admitted ${pool}`, 1);
            if (status >= 500) {
                add(`failed ${pool} status`, 1);
            } else if (status === 499 && seconds >= observe.given_up_after) {
                add(`failed ${pool} given_up`, 1);
            }
        }
        if (pool) {
            const failed = failedAttempts(v);
            if (failed) {
                add(`upstream ${pool}`, failed);
            }
        }
        if (pool && status === 200) {
            // attempts before the one that answered count: the client waited for them too
            const first = seconds - last(v.upstream_response_time) + last(v.upstream_header_time);
            histogram(`first ${pool}`, first);
            histogram(`total ${pool}`, seconds);
        }
        return String(add(`requests ${who ? who.label : ''} ${pool} ${status}`, 1));
    } catch (e) {
        return 'uncounted';  // the zone is full: an answer is worth more than its count
    }
}

// Of "0.1, 0.2" the 0.2; 0 where nginx has none.
function last(times) {
    return Number(attempts(times).pop()) || 0;
}

// Without a regular expression: four of them were a quarter of the time that a request costs here.
function attempts(listed) {
    return (listed || '').split(', ');
}

// Attempts that HAProxy ended with a 5xx, or without a word: nginx lists 502 for those. One that did not reach HAProxy has
// no time of its connection.
function failedAttempts(v) {
    const times = attempts(v.upstream_connect_time);
    return attempts(v.upstream_status).filter((status, place) => Number(status) >= 500 && Number(times[place]) >= 0).length;
}

function histogram(key, seconds) {
    let edge = 0;
    while (edge < observe.edges.length && seconds > observe.edges[edge]) {
        edge++;
    }
    add(`${key} ${edge}`, 1);
    add(`${key} sum`, seconds);
}

const HISTOGRAMS = {
    first: ['nginx_http_time_to_first_byte_seconds', 'Time until the first byte of an answer of 200, in seconds.'],
    total: ['nginx_http_request_seconds', 'Time until the last byte of an answer of 200, in seconds.'],
};

// The open-source nginx has no counters by status: these are ours, over all workers. What an alert divides or waits for
// begins at 0, as Prometheus sees no rise from nothing.
function metrics(r) {
    const found = {}, lines = [];
    ngx.shared.counters.items(1000000).forEach((item) => {
        found[item[0]] = item[1];
    });
    const family = (name, type, help) => lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`);
    const pools = [''].concat(Object.keys(models).map((name) => models[name].pool));
    family('nginx_http_requests_total', 'counter', 'Requests answered, by client, pool and status.');
    Object.keys(found).filter((key) => key.startsWith('requests ')).sort().forEach((key) => {
        const at = key.split(' ');
        lines.push(`nginx_http_requests_total{client="${at[1]}",pool="${at[2]}",status="${at[3]}"} ${found[key]}`);
    });
    family('nginx_http_requests_admitted_total', 'counter', 'Requests that count for the availability objective.');
    pools.forEach((pool) => {
        lines.push(`nginx_http_requests_admitted_total{pool="${pool}"} ${found[`admitted ${pool}`] || 0}`);
    });
    family('nginx_http_requests_failed_total', 'counter', 'Of these, answered 5xx (status), or given up by the client ' +
           'without a byte after its patience (given_up).');
    pools.forEach((pool) => ['status', 'given_up'].forEach((reason) => {
        const value = found[`failed ${pool} ${reason}`] || 0;
        lines.push(`nginx_http_requests_failed_total{pool="${pool}",reason="${reason}"} ${value}`);
    }));
    family('nginx_http_upstream_errors_total', 'counter', 'Attempts that HAProxy ended with a 5xx or unanswered, ' +
           'those that nginx sent again included.');
    pools.slice(1).forEach((pool) => {
        lines.push(`nginx_http_upstream_errors_total{pool="${pool}"} ${found[`upstream ${pool}`] || 0}`);
    });
    Object.keys(HISTOGRAMS).forEach((kind) => {
        const name = HISTOGRAMS[kind][0];
        family(name, 'histogram', HISTOGRAMS[kind][1]);
        pools.slice(1).forEach((pool) => {
            let total = 0;
            for (let edge = 0; edge <= observe.edges.length; edge++) {
                total += found[`${kind} ${pool} ${edge}`] || 0;
                const le = edge < observe.edges.length ? observe.edges[edge] : '+Inf';
                lines.push(`${name}_bucket{pool="${pool}",le="${le}"} ${total}`);
            }
            lines.push(`${name}_sum{pool="${pool}"} ${found[`${kind} ${pool} sum`] || 0}`,
                       `${name}_count{pool="${pool}"} ${total}`);
        });
    });
    r.headersOut['Content-Type'] = 'text/plain; version=0.0.4';
    r.return(200, lines.join('\n') + '\n');
}

export default {admit, client, count, error, health, list_models, metrics};
