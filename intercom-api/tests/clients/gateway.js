// Calls the provisioning API through the npm package `aliyun-api-gateway`, which knows nothing of us.
// Arguments: base URL, appKey, appSecret. A line of standard input is {path, apiVer, params[, query]}, a line of output is
// {status, body} or {status, error} with what the gateway's client says.
const { Client } = require('aliyun-api-gateway');
const { randomUUID } = require('crypto');
const [base, key, secret] = process.argv.slice(2);
const client = new Client(key, secret);

async function call({ path, apiVer, params, query }) {
  const data = { id: randomUUID().replaceAll('-', ''), version: '1.0.0', request: { apiVer }, params };
  try {
    return { status: 200, body: await client.post(base + path, { data, query, timeout: 20000 }) };
  } catch (error) {
    return { status: error.code, error: error.message };
  }
}

(async () => {
  for await (const line of require('readline').createInterface({ input: process.stdin })) {
    console.log(JSON.stringify(await call(JSON.parse(line))));
  }
  // Its connections would keep it for 20 seconds.
  process.exit(0);
})();
