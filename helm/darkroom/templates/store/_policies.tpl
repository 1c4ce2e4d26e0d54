{{/*
S3 policies: what each service does in the bucket, as prefix and verbs. docs/operators.md shows the same as a table.
  list: prefixes that are listed · get, put, delete: objects that are read, written, removed: one key, or all below a prefix
    that ends with "/"; "*" stands for anything
  bucket: it asks whether the bucket is there, or makes it
*/}}
{{- define "darkroom.storeAccess" -}}
captioner:
  # Pictures may be named by any key below sessions/; captions are the only thing it writes.
  list: [sessions/]
  get: [sessions/]
  put: [sessions/*/captions/]
trainer:
  bucket: [look]
  # Sessions are its own; checkpoints and imports it touches when sessions are exported and imported.
  list: [sessions/, checkpoints/, models/, imports/]
  get: [sessions/, checkpoints/, models/, imports/]
  put: [sessions/, checkpoints/, imports/]
  delete: [sessions/, checkpoints/, imports/]
dreambooth:
  list: [sessions/, checkpoints/, models/]
  get: [sessions/, checkpoints/, models/]
  # Of a run only what its pod records. job.json, status.json and the like are the trainer's, who believes them.
  put:
    - sessions/*/class_images/
    - sessions/*/runs/*/writer.json
    - sessions/*/runs/*/events/
    - sessions/*/runs/*/resume_points/
    - sessions/*/runs/*/samples/
    - sessions/*/runs/*/tensorboard/
    - checkpoints/
  # Old resume points, the curves of earlier attempts, and what an attempt left that did not finish.
  delete: [sessions/*/runs/*/resume_points/, sessions/*/runs/*/tensorboard/, checkpoints/]
converter:
  bucket: [look]
  list: [checkpoints/, models/, conversions/]
  get: [checkpoints/, models/, conversions/]
  put: [checkpoints/, conversions/]
  delete: [checkpoints/]
webui-gateway:
  list: [checkpoints/]
  get: [checkpoints/]
webui-engine:
  list: [checkpoints/]
  get: [checkpoints/]
bucket-setup:
  bucket: [look, make]
  list: [models/, controlnets/]
  get: [models/, controlnets/]
  put: [models/, controlnets/]
{{- end -}}

{{/* One policy document: dict "bucket" "darkroom" "access" (an entry of the table). */}}
{{- define "darkroom.storePolicy" -}}
{{- $arn := printf "arn:aws:s3:::%s" .bucket -}}
{{- $statements := list -}}
{{- $verbs := dict "get" (list "s3:GetObject") "put" (list "s3:PutObject" "s3:AbortMultipartUpload" "s3:ListMultipartUploadParts") "delete" (list "s3:DeleteObject") -}}
{{- with .access.bucket -}}
{{- $actions := list "s3:GetBucketLocation" -}}
{{- if has "make" . -}}
{{- $actions = concat $actions (list "s3:CreateBucket" "s3:GetLifecycleConfiguration" "s3:PutLifecycleConfiguration") -}}
{{- end -}}
{{- $statements = append $statements (dict "Sid" "Bucket" "Effect" "Allow" "Action" $actions "Resource" (list $arn)) -}}
{{- /* HeadBucket needs ListBucket, and its request has no prefix that could be compared. */ -}}
{{- $statements = append $statements (dict "Sid" "LookForTheBucket" "Effect" "Allow" "Action" (list "s3:ListBucket") "Resource" (list $arn) "Condition" (dict "Null" (dict "s3:prefix" "true"))) -}}
{{- end -}}
{{- with .access.list -}}
{{- $prefixes := list -}}
{{- range . }}{{ $prefixes = append $prefixes (printf "%s*" .) }}{{ end -}}
{{- $statements = append $statements (dict "Sid" "List" "Effect" "Allow" "Action" (list "s3:ListBucket") "Resource" (list $arn) "Condition" (dict "StringLike" (dict "s3:prefix" $prefixes))) -}}
{{- end -}}
{{- range $verb := list "get" "put" "delete" -}}
{{- with get $.access $verb -}}
{{- $resources := list -}}
{{- range . }}{{ $resources = append $resources (printf "%s/%s%s" $arn . (ternary "*" "" (hasSuffix "/" .))) }}{{ end -}}
{{- $statements = append $statements (dict "Sid" (title $verb) "Effect" "Allow" "Action" (get $verbs $verb) "Resource" $resources) -}}
{{- end -}}
{{- end -}}
{{- dict "Version" "2012-10-17" "Statement" $statements | toPrettyJson -}}
{{- end -}}
