#!/usr/bin/env perl

# A cluster whose nodes want a password: REMOTE_PASSWORD is for every connection to every node.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use Cluster;
use EG::Test;
use Redis;

my $cluster = Cluster->new(masters => 3);
$cluster->client($_)->cmd('CONFIG', 'SET', 'requirepass', 'guarded') for 0 .. 2;

my $proxy = $cluster->proxy(env => { REMOTE_PASSWORD => 'guarded' });
wait_for { $proxy->log =~ /a cluster of 3 masters/ && $proxy->log =~ /\d+ commands/ } 'the map';
my $c = $proxy->client;
is scalar(grep { my $r = $c->cmd('SET', "k$_", $_); ref $r || $r ne 'OK' } 1 .. 100), 0, 'SET on all nodes';
is_deeply $c->cmd('MGET', map { "k$_" } 1 .. 100), [ 1 .. 100 ], 'MGET over all nodes';
$c->put('MULTI'), $c->put('INCR', 'n'), $c->put('EXEC');
is_deeply [ map { $c->get } 1 .. 3 ], [ 'OK', 'QUEUED', [1] ], 'a connection of its own';
is $c->cmd('AUTH', 'guarded'), 'OK', 'AUTH';
is $c->cmd('GET', 'k1'), 1;
like Redis::is_error($c->cmd('AUTH', 'guessed')), qr/^WRONGPASS/, 'AUTH with another one';
my $three = $proxy->client;
is_deeply { @{ $three->cmd('HELLO', 3, 'AUTH', 'default', 'guarded') } }->{proto}, 3, 'HELLO';
is $three->cmd('GET', "k$_"), $_ for 1 .. 5;

my $without = $cluster->proxy(allow => qr/NOAUTH/, args => ['--upstream-wait=300ms']);
my $refused = Redis::is_error($without->client->cmd('GET', 'k1'));
like $refused, qr/^(?:NOAUTH|ERR redisproxy: )/, "without the password: " . ($refused // '');
done_testing;
