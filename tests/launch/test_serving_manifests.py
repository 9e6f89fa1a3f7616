"""What launch/serve.sh would apply, and the image that it runs."""

import json
import re
import shutil
import subprocess

import pytest
import yaml
from contract import ROOT

IMAGE = '--image=registry/tessera:0.2'
KSERVE = ('kserve', IMAGE, '--name=digits', '--storage_uri=gs://bucket/runs/digits', '--dry_run')
PLAIN = ('plain', IMAGE, '--name=digits', '--claim=runs', '--folder=digits', '--dry_run')


def shell(*flags: str) -> subprocess.CompletedProcess:
    return subprocess.run(['bash', 'launch/serve.sh', *flags], cwd=ROOT, text=True, capture_output=True, timeout=60)


def manifests(*flags: str) -> dict[str, dict]:
    """The manifests by kind."""
    done = shell(*flags)
    assert done.returncode == 0, done.stderr
    return {manifest['kind']: manifest for manifest in yaml.safe_load_all(done.stdout)}


def test_kserve_gets_a_runtime_and_a_service_of_protocol_v2():
    made = manifests(*KSERVE, '--token_secret=tokens', '--', '--queue=64', '--say=a "b" \\c')
    runtime, service = made['ServingRuntime']['spec'], made['InferenceService']
    (container,) = runtime['containers']
    assert container['name'] == 'kserve-container' and container['image'] == 'registry/tessera:0.2'
    assert container['ports'] == [{'containerPort': 8080}]
    assert container['args'][0] == '--workdir=digits=/mnt/models'
    assert container['args'][-2:] == ['--queue=64', '--say=a "b" \\c']
    assert 'digits-predictor.default.svc.cluster.local' in container['args'][1].split('=')[1].split(',')
    assert container['env'] == [
        {'name': 'TESSERA_TOKEN', 'valueFrom': {'secretKeyRef': {'name': 'tokens', 'key': 'token'}}}
    ]
    assert '--allow_anonymous' not in container['args']
    assert container['readinessProbe']['httpGet']['path'] == '/v2/models/digits/ready'
    assert container['livenessProbe']['httpGet']['path'] == '/v2/health/live'
    assert container['startupProbe']['failureThreshold'] * container['startupProbe']['periodSeconds'] == 600
    predictor = service['spec']['predictor']
    model = predictor['model']
    assert model['runtime'] == made['ServingRuntime']['metadata']['name'] == service['metadata']['name'] == 'digits'
    assert model['protocolVersion'] == 'v2' and 'v2' in runtime['protocolVersions']
    assert model['modelFormat'] in [
        {'name': known['name'], 'version': known['version']} for known in runtime['supportedModelFormats']
    ]
    assert model['storageUri'] == 'gs://bucket/runs/digits'
    assert service['metadata']['annotations']['serving.kserve.io/deploymentMode'] == 'Standard'
    assert service['metadata']['annotations']['serving.kserve.io/autoscalerClass'] == 'none'
    assert 'autoScaling' not in predictor and predictor['terminationGracePeriodSeconds'] > 30


def test_kserve_scales_on_the_queue():
    made = manifests(*KSERVE, '--anonymous', '--prometheus=http://prometheus:9090', '--max=4', '--queue=8')
    service = made['InferenceService']
    (metric,) = service['spec']['predictor']['autoScaling']['metrics']
    assert service['metadata']['annotations']['serving.kserve.io/autoscalerClass'] == 'keda'
    assert metric['external']['metric'] == {
        'backend': 'prometheus', 'serverAddress': 'http://prometheus:9090',
        'query': 'sum(tessera_queue_requests{model="digits"})',
    }  # fmt: skip
    assert metric['external']['target'] == {'type': 'Value', 'value': '8'}
    assert service['spec']['predictor']['maxReplicas'] == 4


def test_plain_is_a_deployment_with_its_service_scaler_and_budget():
    made = manifests(*PLAIN, '--anonymous', '--max=3', '--gpus=1', '--hosts=models.example.org')
    assert sorted(made) == ['Deployment', 'HorizontalPodAutoscaler', 'PodDisruptionBudget', 'Service']
    pod = made['Deployment']['spec']['template']
    (container,) = pod['spec']['containers']
    assert container['args'][0] == '--workdir=digits=/mnt/models/digits' and '--allow_anonymous' in container['args']
    assert 'models.example.org' in container['args'][1] and container['env'] == []
    assert container['resources']['limits'] == {'memory': '4Gi', 'nvidia.com/gpu': '1'}
    labels = pod['metadata']['labels']
    assert made['Service']['spec']['selector'] == labels
    assert made['Deployment']['spec']['selector']['matchLabels'] == labels
    assert made['PodDisruptionBudget']['spec']['selector']['matchLabels'] == labels
    names = {port['name'] for port in container['ports']}
    assert made['Service']['spec']['ports'][0]['targetPort'] in names
    scaler = made['HorizontalPodAutoscaler']['spec']
    assert scaler['scaleTargetRef']['name'] == made['Deployment']['metadata']['name'] and scaler['maxReplicas'] == 3
    assert scaler['metrics'][0]['pods']['metric']['name'] == 'tessera_queue_requests'
    mounts = {mount['name'] for mount in container['volumeMounts']}
    assert mounts == {volume['name'] for volume in pod['spec']['volumes']}


def test_a_tpu_is_selected_by_its_node_pool():
    flags = ('--chips=1', '--accelerator=tpu-v5-lite-podslice', '--topology=1x1', '--anonymous')
    made = manifests(*KSERVE, *flags)
    (container,) = made['ServingRuntime']['spec']['containers']
    assert container['resources']['requests']['google.com/tpu'] == '1'
    assert made['InferenceService']['spec']['predictor']['nodeSelector'] == {
        'cloud.google.com/gke-tpu-accelerator': 'tpu-v5-lite-podslice', 'cloud.google.com/gke-tpu-topology': '1x1',
    }  # fmt: skip


@pytest.mark.parametrize('flags', [KSERVE, PLAIN], ids=['kserve', 'plain'])
def test_pods_are_confined_and_probed_under_a_known_name(flags):
    made = manifests(*flags, '--anonymous')
    pod = made['Deployment']['spec']['template']['spec'] if 'Deployment' in made else made['ServingRuntime']['spec']
    (container,) = pod['containers']
    secured = {**pod.get('securityContext', {}), **container['securityContext']}
    assert secured['runAsNonRoot'] and secured['runAsUser'] == 10001 and secured['readOnlyRootFilesystem']
    assert secured['allowPrivilegeEscalation'] is False and secured['capabilities'] == {'drop': ['ALL']}
    assert {'name': 'tmp', 'mountPath': '/tmp'} in container['volumeMounts']  # all that can be written
    for probe in ('startupProbe', 'readinessProbe', 'livenessProbe'):
        assert container[probe]['httpGet']['httpHeaders'] == [{'name': 'Host', 'value': 'localhost'}]
    assert 'cpu' not in container['resources']['limits']


@pytest.mark.parametrize(
    ('flags', 'words'),
    [
        ([], 'kserve or plain'),
        (['kserve', '--anonymous'], '--image is missing'),
        (['plain', IMAGE, '--name=a', '--anonymous'], '--claim is missing'),
        (['kserve', IMAGE, '--name=a', '--anonymous'], '--storage_uri is missing'),
        (['kserve', IMAGE, '--name=A_b', '--anonymous'], '--name is missing or not made of'),
        ([*KSERVE], 'clients need a token'),
        ([*KSERVE, '--anonymous', '--max=3'], '--max needs --prometheus'),
        ([*KSERVE, '--anonymous', '--max=x'], 'not a whole number'),
        ([*KSERVE, '--anonymous', '--min=0'], 'at least one pod'),
        ([*KSERVE, '--anonymous', '--chips=1'], '--chips goes with'),
        ([*PLAIN, '--anonymus'], 'unknown flag --anonymus'),
    ],
)
def test_missing_and_unknown_flags_are_named(flags, words):
    done = shell(*flags)
    assert done.returncode == 1 and words in done.stderr and not done.stdout


def instructions() -> dict[str, list[str]]:
    """The instructions of the Dockerfile, with continued lines joined."""
    text = (ROOT / 'launch' / 'Dockerfile').read_text()
    lines = [line for line in text.replace('\\\n', ' ').splitlines() if line and not line.startswith('#')]
    found: dict[str, list[str]] = {}
    for line in lines:
        name, _, rest = line.partition(' ')
        found.setdefault(name, []).append(rest.strip())
    return found


def test_the_image_runs_the_server_as_a_user_without_rights():
    image = instructions()
    assert image['USER'] == ['10001:10001'] and image['STOPSIGNAL'] == ['SIGTERM']
    command = json.loads(image['ENTRYPOINT'][0]) + json.loads(image['CMD'][0])
    assert command[:3] == ['python', '-m', 'launch.serve']
    flags = dict(flag[2:].split('=', 1) for flag in command[3:])
    assert flags == {'host': '0.0.0.0', 'port': '8080', 'workdir': '/mnt/models'}
    assert image['EXPOSE'] == ['8080'] and 'HOME=/tmp' in image['ENV'][0]
    check = json.loads(image['HEALTHCHECK'][0].partition('CMD')[2])
    assert check[:2] == ['python', '-c'] and '127.0.0.1:8080/v2/health/live' in check[2]
    compile(check[2], 'HEALTHCHECK', 'exec')
    for extra in re.search(r'EXTRAS=([\w,]+)', image['ARG'][0]).group(1).split(','):
        assert f'\n{extra} =\n' in (ROOT / 'setup.cfg').read_text(), extra


def test_the_image_is_built_from_what_the_package_needs():
    kept = [line[1:] for line in (ROOT / 'launch' / 'Dockerfile.dockerignore').read_text().split() if line[0] == '!']
    assert {'research', 'launch', 'configs', 'setup.cfg', 'setup.py'} <= set(kept)
    assert all((ROOT / name).exists() for name in kept)
    description = re.search(r'long_description = file: (\S+)', (ROOT / 'setup.cfg').read_text())
    assert description.group(1) in kept


@pytest.mark.parametrize(
    ('program', 'arguments'), [('hadolint', ['launch/Dockerfile']), ('shellcheck', ['launch/serve.sh'])]
)
def test_linters_find_nothing(program, arguments):
    if not shutil.which(program):
        pytest.skip(f'{program} is not installed')
    done = subprocess.run([program, *arguments], cwd=ROOT, text=True, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
