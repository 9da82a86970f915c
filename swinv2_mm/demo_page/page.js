'use strict';

const get = (id) => document.getElementById(id);
const state = { models: [], limits: null, image: null, size: null, isChanged: false, original: null, predicted: null };

function say(text, isBad = false) {
  get('status').textContent = text;
  get('status').classList.toggle('bad', isBad);
}

function showFields() {
  const model = state.models[get('model').value];
  get('threshold-field').hidden = !model || model.task !== 'detection';
  get('model-help').textContent = model ? model.name : '';
}

function take(file) {
  if (!file) return;
  if (file.size > state.limits.bytes) {
    say(`The file has more than ${Math.round(state.limits.bytes / 2 ** 20)} MB.`, true);
    return;
  }
  if (state.original) URL.revokeObjectURL(state.original);
  state.image = file;
  state.original = URL.createObjectURL(file);
  get('file-name').textContent = file.name || 'Pasted image';
  get('run').disabled = false;
  predict();
}

const isBusy = () => get('form').getAttribute('aria-busy') === 'true';

async function ask(call, values, show) {
  get('form').setAttribute('aria-busy', 'true');
  get('run').disabled = true;
  const query = new URLSearchParams({ model: get('model').value, window: get('window').value, ...values });
  try {
    const response = await fetch(`${call}?${query}`, { method: 'POST', body: state.image });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
    show(answer);
  } catch (error) {
    say(error instanceof TypeError ? 'The server does not answer.' : error.message, true);
  } finally {
    get('form').removeAttribute('aria-busy');
    get('run').disabled = false;
  }
  if (state.isChanged) predict();
}

function predict() {
  if (!state.image) return;
  state.isChanged = isBusy();
  if (state.isChanged) return; // once more when the answer is there
  say('Predicting …');
  ask('predict', { threshold: get('threshold').value }, show);
}

// From shares of the shown element, which may have bars beside the picture, to pixels of the image.
function lookFrom(across, down) {
  if (isBusy()) return;
  const box = get('picture').getBoundingClientRect();
  const [width, height] = state.size;
  const scale = Math.min(box.width / width, box.height / height);
  const x = Math.floor((across - 0.5) * box.width / scale + width / 2);
  const y = Math.floor((down - 0.5) * box.height / scale + height / 2);
  if (x < 0 || y < 0 || x >= width || y >= height) return;
  say('Looking …');
  ask('attention', { x, y }, (answer) => {
    get('attention-picture').src = `data:image/png;base64,${answer.picture}`;
    get('attention-picture').alt = `Attention of pixel ${x}, ${y}`;
    get('attention').hidden = false;
    say(`Attention of pixel ${x}, ${y}: below the picture.`);
  });
}

function show(answer) {
  state.size = [answer.width, answer.height];
  get('attention').hidden = true;
  state.predicted = `data:image/jpeg;base64,${answer.picture}`;
  get('original').checked = false;
  get('picture').src = state.predicted;
  const names = [...new Set(answer.rows.map((row) => row.name))];
  get('picture').alt = `Predicted: ${names.join(', ') || 'nothing'}`;
  get('save').href = state.predicted;
  get('facts').textContent = `${answer.width} × ${answer.height} pixels, ${answer.seconds} s`;
  get('value-name').textContent = answer.task === 'segmentation' ? 'Share of the area' : 'Score';
  get('rows').replaceChildren(...answer.rows.map(tableRow));
  get('table').hidden = answer.rows.length === 0;
  get('empty').hidden = true;
  get('figure').hidden = false;
  const count = answer.rows.length;
  say({
    detection: count === 1 ? 'Found 1 object.' : `Found ${count} objects.`,
    segmentation: `Found ${count} ${count === 1 ? 'class' : 'classes'}.`,
    classification: count ? `This looks like: ${answer.rows[0].name}.` : '',
  }[answer.task]);
}

function tableRow(row) {
  const line = document.createElement('tr');
  const name = document.createElement('td');
  name.textContent = row.name;
  const value = document.createElement('td');
  const bar = document.createElement('progress');
  bar.value = row.value;
  bar.setAttribute('aria-hidden', 'true');
  const text = document.createElement('span');
  text.textContent = `${(100 * row.value).toFixed(1)} %`;
  value.append(bar, text);
  line.append(name, value);
  return line;
}

function listen() {
  const drop = get('drop');
  get('file').addEventListener('change', (event) => take(event.target.files[0]));
  for (const kind of ['dragenter', 'dragover']) {
    document.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add('over'); });
  }
  document.addEventListener('dragleave', (event) => { if (!event.relatedTarget) drop.classList.remove('over'); });
  document.addEventListener('drop', (event) => {
    event.preventDefault();
    drop.classList.remove('over');
    take(event.dataTransfer.files[0]);
  });
  document.addEventListener('paste', (event) => take(event.clipboardData.files[0]));
  get('form').addEventListener('submit', (event) => { event.preventDefault(); predict(); });
  get('model').addEventListener('change', () => { showFields(); predict(); });
  get('threshold').addEventListener('input', () => { get('threshold-value').textContent = Number(get('threshold').value).toFixed(2); });
  for (const id of ['threshold', 'window']) get(id).addEventListener('change', predict);
  get('picture').addEventListener('click', (event) => {
    const box = event.target.getBoundingClientRect();
    lookFrom((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  });
  get('picture').addEventListener('keydown', (event) => { if (event.key === 'Enter') lookFrom(0.5, 0.5); });
  get('original').addEventListener('change', (event) => {
    get('picture').src = event.target.checked ? state.original : state.predicted;
  });
}

async function start() {
  const answer = await (await fetch('models')).json();
  state.models = answer.models;
  state.limits = answer.limits;
  get('window').max = answer.limits.window;
  get('limits').textContent = `${answer.limits.formats.join(', ')}, up to ${Math.round(answer.limits.bytes / 2 ** 20)} MB`;
  answer.models.forEach((model, number) => {
    let group = get('model').querySelector(`[label=${model.task}]`);
    if (!group) {
      group = document.createElement('optgroup');
      group.label = model.task;
      get('model').append(group);
    }
    group.append(new Option(model.name, number));
  });
  showFields();
  listen();
}

start().catch(() => say('The server does not answer.', true));
