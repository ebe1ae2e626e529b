// Only what nginx cannot say by itself: who the client is, which model the body names, and error bodies
// in OpenAI's shape. `keys` (SHA-256 -> client), `models` (name -> pool) and `config` are preloaded JSON.

import crypto from 'crypto';

function client(r) {
    const bearer = /^Bearer +([^\s]+)$/i.exec(r.headersIn.Authorization || '');
    if (!bearer) {
        return '';
    }
    return keys[crypto.createHash('sha256').update(bearer[1]).digest('hex')] || '';
}

// Access phase: lets the request pass with $model and $pool set, or answers it.
async function admit(r) {
    if (!r.variables.client) {
        r.return(401);
        return;
    }
    let body;
    try {
        body = JSON.parse(await r.readRequestText());
    } catch (e) {
        fail(r, 400, 'the body is not JSON', 'invalid_request_error', null);
        return;
    }
    const name = body && typeof body === 'object' ? body.model : undefined;
    if (typeof name !== 'string') {
        fail(r, 400, 'the body names no model: "model" must be a string', 'invalid_request_error', null);
        return;
    }
    if (!Object.prototype.hasOwnProperty.call(models, name)) {
        const shown = name.slice(0, 128);
        fail(r, 404, `The model \`${shown}\` does not exist.`, 'NotFoundError', 'model_not_found');
        return;
    }
    r.variables.model = name;
    r.variables.pool = models[name];
}

const MESSAGES = {
    400: ['invalid_request_error', 'nginx could not read the request'],
    401: ['invalid_request_error', 'missing or wrong API key: send it as Authorization: Bearer KEY'],
    404: ['invalid_request_error', 'unknown path'],
    405: ['invalid_request_error', 'method not allowed'],
    408: ['invalid_request_error', 'the request took too long to arrive'],
    413: ['invalid_request_error', 'the request body is too large'],
    414: ['invalid_request_error', 'the request line is too long'],
    502: ['server_error', 'no replica answered'],
    503: ['server_error', 'no replica is ready; try again'],
    504: ['server_error', 'the replica did not answer in time'],
};

// error_page sends every error that nginx itself makes through here.
function error(r) {
    const status = Number(r.variables.status) || 500;
    const known = MESSAGES[status] || ['server_error', 'internal error'];
    fail(r, status, known[1], known[0], status === 401 ? 'invalid_api_key' : null);
}

function fail(r, status, message, type, code) {
    r.headersOut['Content-Type'] = 'application/json';
    if (status === 401) {
        r.headersOut['WWW-Authenticate'] = 'Bearer';
    }
    if (status === 503) {
        r.headersOut['Retry-After'] = '5';
    }
    r.return(status, JSON.stringify({error: {message: message, type: type, param: null, code: code}}) + '\n');
}

// Which configuration these workers run: a reload is over when it is the new one.
function health(r) {
    r.headersOut['Content-Type'] = 'text/plain';
    r.return(200, `revision ${config.revision}\n`);
}

function count(r) {
    return String(ngx.shared.counters.incr(String(r.variables.status), 1, 0));
}

// The open-source nginx has no counters by status: these are ours, over all workers.
function metrics(r) {
    const lines = ['# HELP nginx_http_requests_total Requests answered by the gateway, by status.',
                   '# TYPE nginx_http_requests_total counter'];
    ngx.shared.counters.items().sort().forEach(function (item) {
        lines.push(`nginx_http_requests_total{status="${item[0]}"} ${item[1]}`);
    });
    r.headersOut['Content-Type'] = 'text/plain; version=0.0.4';
    r.return(200, lines.join('\n') + '\n');
}

export default {admit, client, count, error, health, metrics};
