import { expect, it } from 'vitest';
import { toyMachine } from '../../tests/simulator/toy-machine.js';
import { loopingAdvice } from './advice.js';
import { findPricedModel } from './price.js';

const model = findPricedModel('tinystories-15m');
const point = { sockets: 1, batch: 1, context: 64 };

it('says how much looping gives, and why', () => {
  // A layer loads some 4 MB, which takes 4 s here.
  const [much, because] = loopingAdvice(model, toyMachine({ 'call.launch': 4e6 }), point, 'offloaded');
  expect(much).toMatch(/^looping the layers on 1 x Toy: 1\.\d+x \(.* simulated\); \d/);
  expect(because).toMatch(/^because a layer takes .* and the boundary after it 4 s; 5 of them go$/);
});

it('says so when it gives little', () => {
  const [little, because] = loopingAdvice(model, toyMachine({ 'call.launch': 1 }), point, 'offloaded');
  expect(little).toContain(': 1x');
  expect(because).toMatch(/^little, because .* only 1 us; the memory is busy nearly all the time as it is$/);
});
