{{/* Which Service serves which gRPC service, as far as installed. */}}
{{- define "darkroom.grpcServiceNames" -}}
{{- if .Values.captioner.enabled }}
darkroom.captioner.v1.CaptionerService: captioner
{{- end }}
{{- if .Values.trainer.enabled }}
darkroom.trainer.v1.SessionService: trainer
darkroom.trainer.v1.TrainingService: trainer
{{- end }}
{{- if .Values.converter.enabled }}
darkroom.converter.v1.ConverterService: converter
{{- end }}
{{- if .Values.webuiGateway.enabled }}
darkroom.webui.v1.ModelService: webui-gateway
darkroom.webui.v1.ControlNetService: webui-gateway
darkroom.webui.v1.GenerationService: webui-gateway
{{- end }}
{{- end -}}

{{/* Class and TLS of an Ingress; takes its block. */}}
{{- define "darkroom.ingressFields" -}}
{{- with .className }}
ingressClassName: {{ . }}
{{- end }}
{{- with .tlsSecret }}
tls:
  - hosts: [{{ $.host }}]
    secretName: {{ . }}
{{- end }}
{{- end -}}

{{/* Gateways and names of a route; takes its block. */}}
{{- define "darkroom.routeFields" -}}
parentRefs:
  {{- toYaml .parentRefs | nindent 2 }}
{{- with .hostnames }}
hostnames:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
