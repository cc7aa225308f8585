import { expect, test } from 'vitest';
import { depthList, peerList, scheduleList, threadList } from './bench.js';

test('lists are separated by commas, and name everything once', () => {
  expect(scheduleList('looped, operator,looped')).toEqual(['looped', 'operator']);
  expect(threadList('2,1, 2')).toEqual([2, 1]);
  expect(peerList('pytorch', ['llama.cpp'])).toEqual(['llama.cpp', 'pytorch']);
  expect(depthList('1024,4096,1024')).toEqual([1024, 4096]);
});

test.each(['', 'loop', 'operator,', 'operator;looped', 'OPERATOR'])('no schedules: %j', (text) => {
  expect(() => scheduleList(text)).toThrow('Allowed choices are operator, layer, looped, response');
});

test.each(['', 'vllm', 'pytorch,'])('no peers: %j', (text) => {
  expect(() => peerList(text)).toThrow('Allowed choices are llama.cpp, pytorch');
});

test.each(['', '0', '1,,2', '1.5', '-1', '257', 'two'])('no numbers of threads: %j', (text) => {
  expect(() => threadList(text)).toThrow('It must be a whole number, from 1 to 256.');
});
