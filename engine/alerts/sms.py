"""SMS by the signed APIs of Alibaba Cloud and Tencent Cloud, for which apprise has no service.

Both send a template that the vendor has approved, with the alert in one of its parameters.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from urllib.parse import quote

ALIYUN_HOST, TENCENT_HOST = "dysmsapi.aliyuncs.com", "sms.tencentcloudapi.com"
TIMEOUT_S = 15.0
MAX_PARAMETER = 35
"""Characters of a template's parameter that the vendors accept."""
_MAX_REPLY = 1 << 16


def aliyun_signature(parameters: Mapping[str, str], secret: str, method: str = "GET") -> str:
    """Signature of Alibaba Cloud's RPC requests, version 1.0: HMAC-SHA1 over the sorted, encoded query."""

    def encoded(text: str) -> str:
        return quote(text, safe="-_.~")

    query = "&".join(f"{encoded(key)}={encoded(parameters[key])}" for key in sorted(parameters))
    text = f"{method}&{encoded('/')}&{encoded(query)}"
    digest = hmac.new(f"{secret}&".encode(), text.encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode()


def tencent_authorization(
    *, secret_id: str, secret_key: str, service: str, host: str, action: str, payload: bytes, timestamp: int
) -> str:
    """The header Authorization of Tencent Cloud's requests, by TC3-HMAC-SHA256."""
    date = time.strftime("%Y-%m-%d", time.gmtime(timestamp))
    signed = "content-type;host;x-tc-action"
    headers = f"content-type:application/json; charset=utf-8\nhost:{host}\nx-tc-action:{action.lower()}\n"
    request = f"POST\n/\n\n{headers}\n{signed}\n{hashlib.sha256(payload).hexdigest()}"
    scope = f"{date}/{service}/tc3_request"
    text = f"TC3-HMAC-SHA256\n{timestamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"TC3{secret_key}".encode()
    for part in (date, service, "tc3_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    return f"TC3-HMAC-SHA256 Credential={secret_id}/{scope}, SignedHeaders={signed}, Signature={signature}"


def send_aliyun(fields: Mapping[str, str], text: str) -> str:
    """Sends one SMS; returns the error, "" when the vendor has accepted it. Never raises for the network."""
    parameters = {
        "AccessKeyId": fields["key_id"],
        "Action": "SendSms",
        "Format": "JSON",
        "PhoneNumbers": fields["to"],
        "RegionId": "cn-hangzhou",
        "SignName": fields["sign"],
        "SignatureMethod": "HMAC-SHA1",
        "SignatureNonce": str(uuid.uuid4()),
        "SignatureVersion": "1.0",
        "TemplateCode": fields["template"],
        "TemplateParam": json.dumps(
            {fields.get("parameter") or "content": text[:MAX_PARAMETER]}, ensure_ascii=False
        ),
        "Timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "Version": "2017-05-25",
    }
    parameters["Signature"] = aliyun_signature(parameters, fields["password"])
    query = "&".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in parameters.items())
    reply, error = _request(f"https://{ALIYUN_HOST}/?{query}", None, {})
    if error:
        return error
    return "" if reply.get("Code") == "OK" else f"{reply.get('Code')}: {reply.get('Message')}"


def send_tencent(fields: Mapping[str, str], text: str) -> str:
    """As `send_aliyun`."""
    body = {
        "PhoneNumberSet": [fields["to"]],
        "SmsSdkAppId": fields["app"],
        "SignName": fields["sign"],
        "TemplateId": fields["template"],
        "TemplateParamSet": [text[:MAX_PARAMETER]],
    }
    payload, now = json.dumps(body, ensure_ascii=False).encode(), int(time.time())
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "X-TC-Action": "SendSms",
        "X-TC-Version": "2021-01-11",
        "X-TC-Region": fields.get("region") or "ap-guangzhou",
        "X-TC-Timestamp": str(now),
        "Authorization": tencent_authorization(
            secret_id=fields["key_id"],
            secret_key=fields["password"],
            service="sms",
            host=TENCENT_HOST,
            action="SendSms",
            payload=payload,
            timestamp=now,
        ),
    }
    reply, error = _request(f"https://{TENCENT_HOST}/", payload, headers)
    response = reply.get("Response")
    if error or not isinstance(response, dict):
        return error or "the reply has no Response"
    if isinstance(refused := response.get("Error"), dict):
        return f"{refused.get('Code')}: {refused.get('Message')}"
    statuses = response.get("SendStatusSet") or [{}]
    status = statuses[0] if isinstance(statuses[0], dict) else {}
    return "" if status.get("Code") == "Ok" else f"{status.get('Code')}: {status.get('Message')}"


def _request(url: str, payload: bytes | None, headers: dict[str, str]) -> tuple[dict[str, object], str]:
    """The JSON reply, and the error."""
    request = urllib.request.Request(url, payload, headers)  # noqa: S310  https, and the vendor's own host
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:  # noqa: S310
            data = json.loads(reply.read(_MAX_REPLY))
    except urllib.error.HTTPError as problem:
        try:
            data = json.loads(problem.read(_MAX_REPLY))
        except (OSError, ValueError):
            return {}, f"HTTP {problem.code}"
    except (OSError, ValueError) as problem:
        return {}, str(problem)
    return (data, "") if isinstance(data, dict) else ({}, "the reply is not a JSON object")
