'use strict';
// Adds to the report what only a script can: values under the pointer, scales, and samples step by step.

function nearest(points, step) {
  let best = null;
  for (const point of points) {
    if (best === null || Math.abs(point[0] - step) < Math.abs(best[0] - step)) best = point;
  }
  return best;
}

function text(tag, content, className) {
  const element = document.createElement(tag);
  element.textContent = content;
  if (className) element.className = className;
  return element;
}

function hover(figure) {
  const curves = JSON.parse(figure.querySelector('script').textContent);
  const tip = text('div', '', 'tip');
  tip.hidden = true;
  figure.append(tip);
  for (const svg of figure.querySelectorAll('svg')) {
    const scale = JSON.parse(svg.dataset.scale);
    const cross = document.createElementNS(svg.namespaceURI, 'line');
    cross.setAttribute('class', 'cross');
    cross.setAttribute('y1', scale.top);
    cross.setAttribute('y2', scale.bottom);
    cross.setAttribute('visibility', 'hidden');
    svg.append(cross);
    const show = (event) => {
      const box = svg.getBoundingClientRect();
      const unit = box.width / svg.viewBox.baseVal.width;
      const x = Math.min(Math.max((event.clientX - box.left) / unit, scale.left), scale.right);
      const wanted = scale.x[0] + ((x - scale.left) / (scale.right - scale.left)) * (scale.x[1] - scale.x[0]);
      // A curve that does not reach this step is left out; a lone point counts for its surroundings.
      const near = 0.04 * (scale.x[1] - scale.x[0]);
      const reached = (points) => wanted >= points[0][0] - near && wanted <= points[points.length - 1][0] + near;
      const found = curves.filter((curve) => reached(curve.points)).map((curve) => [curve, nearest(curve.points, wanted)]);
      if (!found.length) return;
      const step = nearest(found.map(([, point]) => point), wanted)[0];
      const at = scale.left + ((step - scale.x[0]) / (scale.x[1] - scale.x[0])) * (scale.right - scale.left);
      cross.setAttribute('x1', at);
      cross.setAttribute('x2', at);
      cross.setAttribute('visibility', 'visible');
      tip.replaceChildren(text('div', 'step ' + step.toLocaleString('en')));
      for (const [curve, point] of found) {
        const row = document.createElement('div');
        row.append(text('i', '', 'swatch s' + curve.color), curve.name + ' ');
        row.append(text('b', point[1].toPrecision(4)));
        tip.append(row);
      }
      tip.hidden = false;
      const inside = figure.getBoundingClientRect();
      const left = box.left - inside.left + at * unit;
      const flip = left > inside.width / 2;
      tip.style.left = flip ? 'auto' : left + 12 + 'px';
      tip.style.right = flip ? inside.width - left + 12 + 'px' : 'auto';
      tip.style.top = box.top - inside.top + 8 + 'px';
    };
    svg.addEventListener('pointermove', show);
    svg.addEventListener('pointerdown', show);
    svg.addEventListener('pointerleave', () => {
      tip.hidden = true;
      cross.setAttribute('visibility', 'hidden');
    });
  }
}

function scales(figure) {
  const button = figure.querySelector('.toggle');
  if (!button) return;
  const plots = [...figure.querySelectorAll('.plot')];
  const name = () => (button.textContent = plots[0].hidden ? 'linear scale' : 'log scale');
  button.hidden = false;
  name();
  button.addEventListener('click', () => {
    for (const plot of plots) plot.hidden = !plot.hidden;
    name();
  });
}

function stepper(block) {
  const frames = [...block.querySelectorAll('.frames > [data-step]')];
  for (const image of block.querySelectorAll('.frame')) {
    // As wide as the page, but no higher than a screen.
    image.style.width = 'min(100%, ' + (34 * image.getAttribute('width')) / image.getAttribute('height') + 'rem)';
  }
  if (frames.length < 2) return;
  const slider = document.createElement('input');
  const label = document.createElement('output');
  const play = text('button', 'Play');
  const controls = text('div', '', 'controls');
  const strip = text('div', '', 'strip');
  let timer = 0;
  Object.assign(slider, {type: 'range', min: 0, max: frames.length - 1, step: 1, value: frames.length - 1});
  slider.setAttribute('aria-label', 'step');
  play.type = 'button';
  const show = (index) => {
    slider.value = index;
    frames.forEach((frame, other) => (frame.hidden = other !== index));
    block.querySelectorAll('audio').forEach((sound) => sound.pause());
    [...strip.children].forEach((thumb, other) => thumb.setAttribute('aria-current', other === index));
    const thumb = strip.children[index];
    if (thumb) strip.scrollLeft = thumb.offsetLeft - strip.offsetLeft - strip.clientWidth / 2 + thumb.clientWidth / 2;
    label.textContent = 'step ' + Number(frames[index].dataset.step).toLocaleString('en');
    slider.setAttribute('aria-valuetext', label.textContent);
  };
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    play.textContent = 'Play';
  };
  slider.addEventListener('input', () => {
    stop();
    show(Number(slider.value));
  });
  play.addEventListener('click', () => {
    if (timer) return stop();
    play.textContent = 'Stop';
    show(0);
    timer = setInterval(() => {
      const next = Number(slider.value) + 1;
      if (next < frames.length) show(next);
      else stop();
    }, 600);
  });
  for (const [index, frame] of frames.entries()) {
    const image = frame.querySelector('.frame');
    if (!image) continue;
    const thumb = document.createElement('button');
    thumb.type = 'button';
    thumb.title = 'step ' + frame.dataset.step;
    const copy = image.cloneNode();
    copy.className = image.classList.contains('pixels') ? 'pixels' : '';
    copy.style.width = '';
    copy.alt = thumb.title;
    thumb.append(copy);
    thumb.addEventListener('click', () => {
      stop();
      show(index);
    });
    strip.append(thumb);
  }
  controls.append(play, slider, label);
  block.classList.add('stepping');
  block.querySelector('h3').after(controls);
  if (strip.children.length) block.append(strip);
  show(frames.length - 1);
}

function follow(menu) {
  if (!('IntersectionObserver' in window)) return;
  const links = new Map([...menu.querySelectorAll('a')].map((link) => [link.hash.slice(1), link]));
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.classList.remove('here');
      links.get(entry.target.id).classList.add('here');
    }
  }, {rootMargin: '-20% 0px -70% 0px'});
  for (const name of links.keys()) observer.observe(document.getElementById(name));
}

for (const figure of document.querySelectorAll('.chart')) {
  hover(figure);
  scales(figure);
}
document.querySelectorAll('.stepper').forEach(stepper);
follow(document.querySelector('nav'));
