{{/* Variables and volumes that services share. Secrets come as files: a variable would show in every dump of the process. */}}

{{/* Variables of chassis' ServerConfig; port: the number that DARKROOM_PORT gets, default gRPC. tls: whether it may speak TLS. */}}
{{- define "darkroom.serverEnv" -}}
- {name: DARKROOM_HOST, value: "0.0.0.0"}
- {name: DARKROOM_PORT, value: {{ default (include "darkroom.port.grpc" .) .port | quote }}}
- {name: DARKROOM_METRICS_PORT, value: {{ include "darkroom.port.metrics" . | quote }}}
- {name: DARKROOM_DRAIN_SECONDS, value: {{ .values.drainSeconds | int64 | quote }}}
- {name: DARKROOM_LOG_LEVEL, value: {{ .root.Values.log.level }}}
- {name: DARKROOM_LOG_FORMAT, value: {{ .root.Values.log.format }}}
{{- if .root.Values.auth.enabled }}
- {name: DARKROOM_TOKEN_FILE, value: /etc/darkroom/token/token}
{{- else }}
- {name: DARKROOM_AUTH, value: "off"}
{{- end }}
{{- if and .root.Values.tls.enabled (ne .name "webui-engine") }}
- {name: DARKROOM_TLS_CERTIFICATE_FILE, value: /etc/darkroom/tls/tls.crt}
- {name: DARKROOM_TLS_KEY_FILE, value: /etc/darkroom/tls/tls.key}
{{- end }}
{{- end -}}

{{/* Variables of artifacts' StoreConfig; takes the root. */}}
{{- define "darkroom.storeEnv" -}}
- {name: DARKROOM_S3_ENDPOINT, value: {{ include "darkroom.storeEndpoint" . | quote }}}
- {name: DARKROOM_S3_BUCKET, value: {{ .Values.store.bucket | quote }}}
- {name: DARKROOM_S3_REGION, value: {{ .Values.store.region | quote }}}
- {name: DARKROOM_S3_ACCESS_KEY_FILE, value: /etc/darkroom/store/access-key}
- {name: DARKROOM_S3_SECRET_KEY_FILE, value: /etc/darkroom/store/secret-key}
- {name: DARKROOM_S3_CONNECT_TIMEOUT_SECONDS, value: {{ .Values.store.connectTimeoutSeconds | quote }}}
- {name: DARKROOM_S3_READ_TIMEOUT_SECONDS, value: {{ .Values.store.readTimeoutSeconds | quote }}}
- {name: DARKROOM_S3_RETRIES, value: {{ .Values.store.retries | int64 | quote }}}
{{- end -}}

{{/* Mounts of what a service always has. */}}
{{- define "darkroom.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: store, mountPath: /etc/darkroom/store, readOnly: true}
{{- if .root.Values.auth.enabled }}
- {name: token, mountPath: /etc/darkroom/token, readOnly: true}
{{- end }}
{{- if and .root.Values.tls.enabled (ne .name "webui-engine") }}
- {name: tls, mountPath: /etc/darkroom/tls, readOnly: true}
{{- end }}
{{- with .values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The volumes of these mounts. */}}
{{- define "darkroom.volumes" -}}
- name: tmp
  emptyDir: {sizeLimit: {{ .values.tmpSize }}}
{{ include "darkroom.storeVolume" (dict "root" .root "secret" .values.store.existingSecret) }}
{{- if .root.Values.auth.enabled }}
{{ include "darkroom.tokenVolume" .root }}
{{- end }}
{{- if and .root.Values.tls.enabled (ne .name "webui-engine") }}
- name: tls
  secret: {secretName: {{ include "darkroom.tlsSecret" .root }}}
{{- end }}
{{- with .values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The store's credentials: dict "root" $ "secret" (name of a Secret, or empty for the common one). */}}
{{- define "darkroom.storeVolume" -}}
- name: store
  secret:
    secretName: {{ default (include "darkroom.storeSecret" .root) .secret }}
    items:
      - {key: {{ .root.Values.store.accessKeyKey }}, path: access-key}
      - {key: {{ .root.Values.store.secretKeyKey }}, path: secret-key}
{{- end -}}

{{- define "darkroom.tokenVolume" -}}
- name: token
  secret:
    secretName: {{ include "darkroom.tokenSecret" . }}
    items:
      - {key: {{ .Values.auth.secretKey }}, path: token}
{{- end -}}

{{/* Address of the store. */}}
{{- define "darkroom.storeEndpoint" -}}
{{- if .Values.trialStore.enabled -}}
http://{{ include "darkroom.fullname" . }}-trial-store.{{ .Release.Namespace }}.svc:9000
{{- else -}}
{{ .Values.store.endpoint }}
{{- end -}}
{{- end -}}

{{/* Port of the store, as NetworkPolicies see it. */}}
{{- define "darkroom.storePort" -}}
{{- $url := urlParse (include "darkroom.storeEndpoint" .) -}}
{{- $port := splitList ":" $url.host | last -}}
{{- if .Values.networkPolicy.store.port -}}{{ .Values.networkPolicy.store.port }}
{{- else if regexMatch "^[0-9]+$" $port -}}{{ $port }}
{{- else if eq $url.scheme "https" -}}443
{{- else -}}80
{{- end -}}
{{- end -}}

{{/* Names of the Secrets. */}}
{{- define "darkroom.storeSecret" -}}
{{- if .Values.store.existingSecret -}}{{ .Values.store.existingSecret }}{{- else -}}{{ include "darkroom.fullname" . }}-trial-store{{- end -}}
{{- end -}}
{{- define "darkroom.tokenSecret" -}}
{{ default (printf "%s-token" (include "darkroom.fullname" .)) .Values.auth.existingSecret }}
{{- end -}}
{{- define "darkroom.tlsSecret" -}}
{{ default (printf "%s-tls" (include "darkroom.fullname" .)) .Values.tls.existingSecret }}
{{- end -}}
