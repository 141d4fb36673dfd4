"""The same through the PyPI package `alibabacloud-iot-api-gateway`: the client of the IoT platform, whose envelope ours is.
It sends its time as `Date` and its JSON as a stream of bytes."""

import json
import sys

from alibabacloud_iot_api_gateway.client import Client
from alibabacloud_iot_api_gateway.models import CommonParams, Config, IoTApiRequest
from alibabacloud_tea_util.models import RuntimeOptions

base, key, secret = sys.argv[1:4]
protocol, domain = base.split("://")
client = Client(Config(domain=domain, protocol=protocol, app_key=key, app_secret=secret))
for line in sys.stdin:
    call = json.loads(line)
    body = IoTApiRequest(version="1.0", params=call["params"], request=CommonParams(api_ver=call["apiVer"]))
    response = client.do_request(call["path"], protocol, "POST", {}, body, RuntimeOptions(ignore_ssl=True))
    print(json.dumps({"status": response.status_code, "body": json.loads(response.body)}), flush=True)
