{{/* Rules of NetworkPolicies. docs/operators.md lists the edges; a test compares both. */}}

{{/* Head of a component's policy up to its rules. */}}
{{- define "darkroom.policyHead" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "darkroom.metadata" . | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "darkroom.selectorLabels" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
{{- end -}}

{{/* Ingress from clients to these ports: dict "root" $ "ports" (list 50051). */}}
{{- define "darkroom.fromClients" -}}
{{- with .root.Values.networkPolicy.clients }}
- from:
    {{- toYaml . | nindent 4 }}
  ports:
    {{- range $.ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end }}
{{- end -}}

{{/* Ingress from Prometheus to the metrics port. */}}
{{- define "darkroom.fromMonitoring" -}}
{{- with .root.Values.networkPolicy.monitoring }}
- from:
    {{- toYaml . | nindent 4 }}
  ports:
    - {port: {{ include "darkroom.port.metrics" $ }}, protocol: TCP}
{{- end }}
{{- end -}}

{{/* Ingress from, or egress to, other components of the release, as a list of peers: dict "root" $ "names" (list "trainer"). */}}
{{- define "darkroom.peers" -}}
{{- range .names }}
- podSelector:
    matchLabels:
      {{- include "darkroom.selectorLabels" (dict "root" $.root "name" .) | nindent 6 }}
{{- end }}
{{- end -}}

{{/* Egress to DNS. */}}
{{- define "darkroom.toDns" -}}
{{- $dns := .root.Values.networkPolicy.dns -}}
- to:
    {{- toYaml $dns.to | nindent 4 }}
  ports:
    {{- range $dns.ports }}
    - {port: {{ . }}, protocol: UDP}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end -}}

{{/* Egress to the store. */}}
{{- define "darkroom.toStore" -}}
{{- $policy := .root.Values.networkPolicy.store -}}
- ports:
    - {port: {{ include "darkroom.storePort" .root }}, protocol: TCP}
  {{- if .root.Values.trialStore.enabled }}
  to:
    {{- include "darkroom.peers" (dict "root" .root "names" (list "trial-store")) | nindent 4 }}
  {{- else if $policy.to }}
  to:
    {{- toYaml $policy.to | nindent 4 }}
  {{- end }}
{{- end -}}
