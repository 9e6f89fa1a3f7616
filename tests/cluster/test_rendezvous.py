import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from research.cluster import rendezvous
from research.cluster.rendezvous import meet, split_address
from research.errors import UserError


def free_port() -> int:
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return server.getsockname()[1]


def together(numbers, count, timeout):
    """Calls `meet` for every number at the same time; returns the message of each, '' where all were found."""
    address = f'127.0.0.1:{free_port()}'

    def one(number):
        try:
            meet(address, count, number, timeout)
        except UserError as error:
            return str(error)
        return ''

    with ThreadPoolExecutor(len(numbers)) as executor:
        return list(executor.map(one, numbers))


def test_all_who_come_meet():
    assert together([2, 0, 1, 3], 4, 10) == ['', '', '', '']


def test_every_process_hears_who_is_missing():
    messages = together([0, 2], 4, 1)
    assert all('processes 1, 3 did not connect within 1 s' in message for message in messages), messages


def test_a_number_that_comes_twice_is_named():
    messages = together([0, 1, 1], 4, 5)
    assert '--process_id=1 of a process is a duplicate' in messages[0], messages


def test_no_first_process():
    assert 'process 0 did not answer' in together([1], 2, 1)[0]


def test_noise_on_the_port_is_no_process():
    port = free_port()
    with ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(meet, f'127.0.0.1:{port}', 2, 0, 5)
        for _ in range(100):
            try:
                with socket.create_connection(('127.0.0.1', port), timeout=1) as connection:
                    connection.sendall(b'GET / HTTP/1.1\r\n' * 20)
                break
            except ConnectionRefusedError:
                pass
        assert not waiting.done()  # what was sent counts as no process
        meet(f'127.0.0.1:{port}', 2, 1, 5)
        waiting.result()


@pytest.mark.parametrize('address', ['', 'host', 'host:', ':80', 'host:99999', 'host:port'])
def test_bad_addresses_are_refused(address):
    with pytest.raises(UserError, match='give HOST:PORT'):
        split_address(address)


def test_addresses():
    assert split_address('10.0.0.2:8476') == ('10.0.0.2', 8476)
    assert split_address('[::1]:80') == ('::1', 80)
    assert rendezvous.is_local('127.0.0.1') and not rendezvous.is_local('10.0.0.2')
