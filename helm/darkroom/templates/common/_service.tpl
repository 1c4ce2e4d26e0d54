{{/*
The Services of a component: one with a virtual address, and a headless one whose name gives all pods, for clients that
balance themselves (dns:///NAME-headless:50051 with round_robin): long-lived HTTP/2 connections stay with one pod otherwise.
ports: YAML list of further ports.
*/}}
{{- define "darkroom.grpcServices" -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "darkroom.metadata" (merge (dict "annotations" .values.service.annotations) .) | nindent 2 }}
spec:
  type: {{ .values.service.type }}
  selector:
    {{- include "darkroom.selectorLabels" . | nindent 4 }}
  ports:
    {{- include "darkroom.grpcPort" . | nindent 4 }}
    {{- with .ports }}
    {{- . | nindent 4 }}
    {{- end }}
    - {name: metrics, port: {{ include "darkroom.port.metrics" . }}, targetPort: metrics}
---
apiVersion: v1
kind: Service
metadata:
  {{- include "darkroom.metadata" (merge (dict "suffix" "headless") .) | nindent 2 }}
spec:
  clusterIP: None
  selector:
    {{- include "darkroom.selectorLabels" . | nindent 4 }}
  ports:
    {{- include "darkroom.grpcPort" . | nindent 4 }}
{{- end -}}

{{- define "darkroom.grpcPort" -}}
- {name: grpc, port: {{ include "darkroom.port.grpc" . }}, targetPort: grpc, appProtocol: {{ ternary "https" "kubernetes.io/h2c" .root.Values.tls.enabled }}}
{{- end -}}
