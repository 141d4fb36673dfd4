"""The same as gateway.js through the PyPI package `aliyun-api-gateway-python`."""

import json
import sys
import uuid

from aliyun_api_gateway import ApiGatewayClient, ApiGatewayRequest

base, key, secret = sys.argv[1:4]
client = ApiGatewayClient(base, app_key=key, app_secret=secret, timeout=20)
for line in sys.stdin:
    call = json.loads(line)
    body = {"id": uuid.uuid4().hex, "version": "1.0.0", "request": {"apiVer": call["apiVer"]}, "params": call["params"]}
    response = client.send(ApiGatewayRequest("POST", call["path"], query=call.get("query") or {}, json_body=body))
    print(json.dumps({"status": response.status, "body": response.json()}), flush=True)
