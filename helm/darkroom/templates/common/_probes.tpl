{{/*
Probes. Startup waits for the models, for as long as startupSeconds; readiness follows the service's health; liveness asks
for less, so that a busy pod is not killed.

Kubernetes before 1.37 speaks gRPC probes in plain text only. With TLS the probes read the same health from the metrics
port (darkroom_serving), and liveness asks whether the port is open.
*/}}
{{- define "darkroom.grpcProbes" -}}
{{- $tls := .root.Values.tls.enabled -}}
startupProbe:
  {{- include (ternary "darkroom.healthByMetrics" "darkroom.healthByGrpc" $tls) . | nindent 2 }}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: {{ divf .values.startupSeconds 5 | ceil | int }}
readinessProbe:
  {{- include (ternary "darkroom.healthByMetrics" "darkroom.healthByGrpc" $tls) . | nindent 2 }}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
livenessProbe:
  {{- if $tls }}
  tcpSocket:
    port: grpc
  {{- else }}
  {{- include "darkroom.healthByGrpc" . | nindent 2 }}
  {{- end }}
  periodSeconds: 20
  timeoutSeconds: 10
  failureThreshold: 6
{{- end -}}

{{- define "darkroom.healthByGrpc" -}}
grpc:
  port: {{ include "darkroom.port.grpc" . }}
{{- end -}}

{{- define "darkroom.healthByMetrics" -}}
exec:
  command:
    - python
    - -c
    - |
      import re, sys, urllib.request
      page = urllib.request.urlopen("http://127.0.0.1:{{ include "darkroom.port.metrics" . }}/metrics", timeout=4).read().decode()
      states = re.findall(r"^darkroom_serving\{.*\} (\S+)$", page, re.MULTILINE)
      sys.exit(0 if states and all(float(state) == 1 for state in states) else 1)
{{- end -}}

{{/* HTTP probes: besides the component ready and scheme, and startup (the path that startup asks). */}}
{{- define "darkroom.httpProbes" -}}
startupProbe:
  httpGet: {path: {{ .startup }}, port: http, scheme: {{ .scheme }}}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: {{ divf .values.startupSeconds 5 | ceil | int }}
readinessProbe:
  httpGet: {path: {{ .ready }}, port: http, scheme: {{ .scheme }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
livenessProbe:
  httpGet: {path: /healthz, port: http, scheme: {{ .scheme }}}
  periodSeconds: 20
  timeoutSeconds: 10
  failureThreshold: 6
{{- end -}}

{{/* Ports, the same in every service. */}}
{{- define "darkroom.port.grpc" -}}50051{{- end -}}
{{- define "darkroom.port.metrics" -}}9090{{- end -}}
{{- define "darkroom.port.http" -}}7860{{- end -}}
{{- define "darkroom.port.engine" -}}7861{{- end -}}
